"""Carries a run out of JAX: python -m launch.convert --workdir=RUN --out=DIR.

Writes a folder that stands alone: model.py (PyTorch and nothing else), model.safetensors,
model.json, model.onnx (from decoded pixels of any size to verdicts), and an example of ten lines
for either. Both are run on the run's own test pictures, as they were read from their files: the
largest differences and the metrics of both sides are printed and kept in parity.json, and nothing
is left behind if a difference is above 1e-4 (of a box, 0.05 pixels) or a metric moves by 0.1 point.

--to=torch or --to=onnx leaves the other out; --static=1,480,640 fixes the ONNX file to batches and
pictures of that size. --precision=float16 or int8 makes the ONNX file smaller: what that costs is
printed, and is yours to accept.
"""

import importlib.util
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from jaxdefect.data import decode, splits
from jaxdefect.evaluate import runner
from launch import command, experiment, finished_run, tasks
from launch.versions import versions

TARGETS = ('torch', 'onnx')
_FOR_THE_LINE = {
  'torch': 'model.py with model.safetensors and model.json (PyTorch)',
  'onnx': 'model.onnx alone (ONNX Runtime)',
}
PRECISIONS = ('float32', 'float16', 'int8')
LARGEST_CHANGE = 0.001  # of a metric
_FOR_ONNX = ('onnx', 'onnxscript', 'onnxruntime')
_MEASURED = 64  # training pictures on which the ranges of int8 are measured


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_list('to', list(TARGETS), 'torch, onnx or both', flag_values=values)
  flags.DEFINE_string('out', None, 'folder to write', flag_values=values)
  flags.DEFINE_integer('images', 200, 'test pictures to compare on', flag_values=values)
  flags.DEFINE_list(
    'static', [], 'N,HEIGHT,WIDTH that the ONNX file takes; by default any', flag_values=values
  )
  flags.DEFINE_string(
    'precision', 'float32', f'of the ONNX file: {", ".join(PRECISIONS)}', flag_values=values
  )


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir', 'out')
  static = _check(values)
  out = pathlib.Path(values.out)
  found = convert(
    pathlib.Path(values.workdir),
    out,
    targets=values.to,
    limit=values.images,
    static=static,
    precision=values.precision,
  )
  for target in values.to:
    _tell(target, found[target])
  print(f'wrote {out}: {", ".join(sorted(path.name for path in out.iterdir()))}')
  print('for the line: ' + ' or '.join(_FOR_THE_LINE[target] for target in values.to))


def convert(
  directory: pathlib.Path,
  out: pathlib.Path,
  *,
  targets: Sequence[str] = TARGETS,
  limit: int = 200,
  static: tuple[int, int, int] | None = None,
  precision: str = 'float32',
) -> dict[str, Any]:
  """Writes the folder of an exported run, checked against the run.

  Args:
    directory: of the finished run.
    out: the folder to write.
    targets: of ``TARGETS``.
    limit: test pictures to compare on, evenly over all.
    static: (N, H, W) that the ONNX file takes; None for any.
    precision: of the ONNX file.

  Returns:
    What ``parity.json`` holds.

  Raises:
    ValueError: the method cannot be converted, or the exported model says something else.
  """
  run = finished_run.read_run(directory)
  if run.method.deploy is None:
    raise ValueError(f'the method {run.config.method.name} cannot be converted')
  try:
    from jaxdefect.convert import examples, export, exported, onnx_precision, to_onnx
  except ModuleNotFoundError as error:
    raise ValueError(f'{error}: pip install "jaxdefect[torch]"') from None
  deployment = export.complete(
    run.method.deploy(run.fitted),
    image_size=tuple(run.config.data.image_size),
    interpolation=run.config.data.interpolation,
    calibration=run.fitted.calibration,
  )
  check = _Check(run, limit)
  found: dict[str, Any] = {}

  def add(folder: pathlib.Path, module: Any, described: dict[str, Any]) -> None:
    found['pixels'] = check.pixels(module)
    if found['pixels']:
      raise ValueError(
        f"pixels at the network's size differ by {found['pixels']:g} of 255; nothing was written"
      )
    if 'torch' in targets:
      found['torch'] = check.compare('PyTorch', exported.TorchModel(module))
    else:
      for name in ('model.py', 'model.safetensors', 'example.py'):
        (folder / name).unlink()
    if 'onnx' in targets:
      path = folder / 'model.onnx'
      to_onnx.write(path, module, described, static=static)
      if precision != 'float32':
        onnx_precision.reduce(path, precision, check.training_pictures())
      strict = precision == 'float32'
      found['onnx'] = check.compare('ONNX', exported.open_model(path), strict=strict)
      found['onnx']['precision'] = precision
      (folder / 'example_onnx.py').write_text(examples.ONNX)
    (folder / 'parity.json').write_text(json.dumps(found, indent=1) + '\n')

  export.write(out, *deployment, details=_details(run), add=add)
  return found


def _tell(target: str, found: dict[str, Any]) -> None:
  """Prints the comparison with one of the targets."""
  told = ', '.join(f'{key} {value:.1e}' for key, value in found['differences'].items())
  same = f'{found["decided_the_same"]} of {found["n"]} pictures decided the same'
  print(f'{target}: {same}; largest differences: {told}')
  in_jax = found['metrics_in_jax']
  differ = {name: value for name, value in found['metrics'].items() if value != in_jax[name]}
  for name, value in differ.items():
    print(f'  {name}: {value:.6g} ({in_jax[name]:.6g} in JAX)')
  if alike := [name for name in in_jax if name not in differ]:
    print(f'  {", ".join(alike)}: as in JAX')


def _check(values: flags.FlagValues) -> tuple[int, int, int] | None:
  """The fixed shape, after all flags were looked at."""
  for name in values.to:
    if name not in TARGETS:
      raise ValueError(f'--to holds {name!r}; it can hold {", ".join(TARGETS)}')
  if 'onnx' in values.to and not all(map(importlib.util.find_spec, _FOR_ONNX)):
    raise ValueError(
      f'ONNX needs {", ".join(_FOR_ONNX)}: pip install "jaxdefect[onnx]", or --to=torch'
    )
  if values.precision not in PRECISIONS:
    raise ValueError(f'--precision is {values.precision!r}; it can be {", ".join(PRECISIONS)}')
  if not values.static:
    return None
  if len(values.static) != 3 or not all(one.isdigit() and int(one) for one in values.static):
    raise ValueError(f'--static is {",".join(values.static)}; it must be N,HEIGHT,WIDTH')
  batch, height, width = (int(one) for one in values.static)
  return batch, height, width


def _details(run: finished_run.Finished) -> dict[str, Any]:
  """What whoever runs the model must know, and where it comes from."""
  config, calibration = run.config, run.fitted.calibration
  details: dict[str, Any] = {
    'method': config.method.name,
    'data': {
      'image_size': list(config.data.image_size),
      'interpolation': config.data.interpolation,
      'max_boxes': experiment.max_boxes(config),
      'sixteen_bit_range': list(config.data.get('sixteen_bit_range', decode.FULL_RANGE)),
    },
    'versions': versions(),
  }
  if (run.directory / 'evidence.json').exists():
    details['evidence_ceiling'] = run.evidence_ceiling
  if calibration is not None:
    details['calibration'] = {
      name: np.asarray(value).tolist() for name, value in calibration.items()
    }
  return details


def _spread(indices: Any, limit: int) -> list[int]:
  """So many of them, evenly over the list, whose order is that of the classes."""
  places = np.unique(np.linspace(0, len(indices) - 1, min(limit, len(indices))).round())
  return [int(indices[int(place)]) for place in places]


class _Check:
  """Our side of the comparison, computed once."""

  def __init__(self, run: finished_run.Finished, limit: int):
    self._run = run
    # With what was held out since: nothing is trained here.
    self._source = experiment.load_whole(run.config.data)
    split = splits.read(run.directory / 'split.json', self._source)
    self._training = split.train
    self._indices = _spread(split.test or split.validation or split.train, limit)
    if not self._indices:
      raise ValueError(f'{run.directory} has no pictures to compare the exported model on')
    self._batches = experiment.eval_batches(
      run.config, self._source, self._indices, run.fitted.classes
    )
    self.ours, self._seen = runner.predict_all(
      run.method.predict, run.fitted, self._batches, keys=tasks.SEEN
    )
    self._native, self._seen_native = tasks.in_native_pixels(self.ours, self._seen)
    self._metrics = self._evaluate(self._native)

  def pictures(self) -> Any:
    """The pictures as they were read, one after the other."""
    return (self._source.read(int(i)) for i in self._indices)

  def training_pictures(self) -> Any:
    """Some pictures of the training part, as they were read."""
    return (self._source.read(int(i)) for i in _spread(self._training, _MEASURED))

  def pixels(self, module: Any) -> float:
    """The largest difference of a pixel at the network's size."""
    import torch

    largest, place = 0.0, 0
    for batch in self._batches:
      for row in np.flatnonzero(batch['valid']):
        picture = self._source.read(int(self._indices[place]))
        picture = np.repeat(picture, 3 // picture.shape[2], axis=2)[None]
        own = module.resized(torch.from_numpy(np.array(picture)))[0].numpy()
        largest = max(largest, float(np.abs(own - batch['image'][row]).max()))
        place += 1
    return largest

  def compare(self, name: str, model: Any, *, strict: bool = True) -> dict[str, Any]:
    """What differs; complains where it is too much."""
    from jaxdefect.convert import exported, parity

    started = time.perf_counter()
    theirs = parity.predictions(exported.run(model, self.pictures()))
    seconds = time.perf_counter() - started
    result = parity.compare(self._native, theirs)
    metrics = self._evaluate(theirs)
    if strict:
      failure = result.failure()
      moved = [k for k, v in metrics.items() if abs(v - self._metrics[k]) > LARGEST_CHANGE]
      if failure is None and moved:
        failure = (
          f'{moved[0]} of the exported model is {metrics[moved[0]]:.4f}, '
          f'ours {self._metrics[moved[0]]:.4f}'
        )
      if failure is not None:
        raise ValueError(f'{name}: {failure}; nothing was written')
    return {
      'differences': result.differences,
      'decided_the_same': result.equal,
      'n': result.n,
      'metrics': metrics,
      'metrics_in_jax': self._metrics,
      'ms_per_picture': round(1000 * seconds / result.n, 2),
    }

  def _evaluate(self, predictions: Any) -> dict[str, float]:
    task = tasks.of(predictions)
    reduce = getattr(task, 'reduce', None)
    predictions = predictions if reduce is None else reduce(predictions)
    report = task.evaluate(predictions, self._seen_native, self._run.fitted)
    return {name: report['metrics'][name] for name in tasks.HEADLINES if name in report['metrics']}


if __name__ == '__main__':
  command.run(define, main)
