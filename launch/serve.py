"""Serves an exported model over HTTP: python -m launch.serve --model=EXPORT [--port=8000].

EXPORT is what launch.convert wrote: a folder (run by PyTorch) or an ONNX file (by onnxruntime).

  curl --data-binary @part.png http://127.0.0.1:8000/inspect     the verdict, as JSON
  curl --data-binary @part.png http://127.0.0.1:8000/overlay     the picture with what was found

/health and /metrics (Prometheus) say how it does. There is no password: it binds to this machine
alone unless --host says otherwise, and then belongs behind a gateway of yours.
"""

import io
import pathlib
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from launch import command, exported_run, tasks


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('model', None, 'what launch.convert wrote', flag_values=values)
  flags.DEFINE_string('host', '127.0.0.1', 'address to bind to', flag_values=values)
  flags.DEFINE_integer('port', 8000, 'port to bind to', flag_values=values)
  flags.DEFINE_integer('queue', 16, 'pictures that are held at once', flag_values=values)
  flags.DEFINE_integer('workers', 1, 'pictures that are computed on at once', flag_values=values)
  flags.DEFINE_integer('largest_body', 2**25, 'bytes of a picture file', flag_values=values)
  command.define_false_alarm_rate(values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'model')
  try:
    import uvicorn

    from jaxdefect import serve
  except ModuleNotFoundError as error:
    raise ValueError(f'{error}: pip install "jaxdefect[serve]"') from None
  run = exported_run.open_run(pathlib.Path(values.model), false_alarm_rate=values.false_alarm_rate)
  app = serve.make_app(
    inspector(run),
    {name: run.model.described.get(name) for name in ('method', 'classes', 'outputs', 'data')},
    queue=values.queue,
    workers=values.workers,
    largest_body=values.largest_body,
    sixteen_bit_range=tuple(run.config.data.sixteen_bit_range),
  )
  print(f'http://{values.host}:{values.port}/  (Ctrl+C ends it)', flush=True)
  uvicorn.run(
    app,
    host=values.host,
    port=values.port,
    log_level='warning',
    timeout_graceful_shutdown=30,
  )


def inspector(run: exported_run.ExportedRun) -> Any:
  """One picture through an exported model, as ``serve.make_app`` wants it."""

  def inspect(picture: np.ndarray, draw: bool) -> tuple[dict[str, Any], bytes | None]:
    row, predictions = run.inspect(picture)
    if not draw:
      return row, None
    drawn = tasks.of(predictions).overlay(run, picture, predictions, row)
    if drawn is None:
      return row, None
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, 'PNG', compress_level=1)
    return row, file.getvalue()

  return inspect


if __name__ == '__main__':
  command.run(define, main)
