"""A finished run in JAX, PyTorch (eager and compiled) and ONNX Runtime, from decoded pixels on.

    python -m benchmarks.deployment RUN [RUN ...] [--rounds=100]

Every RUN holds ``exported/``, which ``launch.convert --workdir=RUN --out=RUN/exported`` wrote. All
four get the same decoded pictures of the run's test part and return the same predictions; ours
resizes with Pillow before the compiled step, the others within their graph. Latency is of one
picture, throughput of batches of 16; contenders take turns. JAX is what the others are compared
with. Writes ``benchmarks/results/deployment-<processor>.json``.
"""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import timing
from jaxdefect.convert import exported
from jaxdefect.data import decode
from jaxdefect.data.letterbox import letterbox
from launch import experiment, finished_run

BATCH = 16
OURS = 'JAX'


def pictures(run: finished_run.Finished, count: int) -> list[np.ndarray]:
  """Decoded test pictures of one size, uint8 [H, W, 3]."""
  source, split = experiment.read_split(run.directory, run.config)
  found = [source.read(int(i)) for i in split.test[: 4 * count]]
  found = [np.repeat(one, 3 // one.shape[2], axis=2) for one in found]
  same = [one for one in found if one.shape == found[0].shape]
  return [same[i % len(same)] for i in range(count)]


def in_jax(run: finished_run.Finished) -> Callable[[list[np.ndarray]], Any]:
  """Pillow's resizing and the compiled ``predict``."""
  size = tuple(run.config.data.image_size)
  boxes = experiment.max_boxes(run.config) is not None
  blank = experiment.batch_spec(run.config)

  def predict(images: list[np.ndarray]) -> Any:
    count = len(images)
    batch = {
      key: np.zeros((count, *one.shape[1:]), one.dtype)
      for key, one in blank.items()
      if key != 'reference'
    }
    batch['valid'] = np.ones(count, bool)
    for row, image in enumerate(images):
      if boxes:
        fitted = letterbox(image, size)
        batch['image'][row] = fitted.image
        batch['size'][row], batch['scale'][row] = fitted.size, fitted.scale
      else:
        batch['image'][row] = decode.resize(image, size)
    return jax.block_until_ready(run.predict(batch))

  return predict


def contenders(
  run: finished_run.Finished, folder: pathlib.Path
) -> dict[str, Callable[[list[np.ndarray]], Any]]:
  """All four, from a list of decoded pictures of one size."""
  from jaxdefect.convert import twins

  module = twins.load(folder)
  compiled = torch.compile(twins.load(folder), dynamic=False)
  onnx = exported.open_model(folder / 'model.onnx')

  def in_torch(network: Any) -> Callable[[list[np.ndarray]], Any]:
    def predict(images: list[np.ndarray]) -> Any:
      with torch.inference_mode():
        return network(torch.from_numpy(np.stack(images)))

    return predict

  return {
    OURS: in_jax(run),
    'PyTorch, eager': in_torch(module),
    'PyTorch, torch.compile': in_torch(compiled),
    'ONNX Runtime': lambda images: onnx(np.stack(images)),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description='What leaves JAX, timed.')
  parser.add_argument('runs', nargs='+', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=100)
  arguments = parser.parse_args()
  torch.set_num_threads(os.cpu_count() or 1)
  cases: dict[str, Any] = {}
  for directory in arguments.runs:
    run = finished_run.read_run(directory)
    some = pictures(run, BATCH)
    calls = contenders(run, directory / 'exported')
    name = f'{run.config.method.name} ({run.config.method.get("backbone", "own network")})'
    for title, images, rounds in (
      ('1 picture', some[:1], arguments.rounds),
      (f'{BATCH} pictures', some, max(5, arguments.rounds // 10)),
    ):
      case = f'{name}, {title} of {images[0].shape[0]} x {images[0].shape[1]}'
      ready = {}
      for who, call in calls.items():
        try:
          call(images)
          ready[who] = lambda call=call, images=images: call(images)
        except Exception as error:  # torch.compile has a class for every reason
          print(f'  {who}: {type(error).__name__}: {str(error).splitlines()[0]}')
      times = timing.take_turns(ready, rounds=rounds)
      ratios = timing.compare(times, ours=OURS)
      timing.show(case, times, ratios)
      cases[case] = {
        'seconds': times,
        'ours_over': ratios,
        'images_per_second': {who: len(images) / row['median'] for who, row in times.items()},
      }
  path = timing.write_results(
    'deployment',
    timing.processor(),
    cases,
    threads=os.cpu_count(),
    sizes={'batch': BATCH, 'rounds': arguments.rounds},
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
