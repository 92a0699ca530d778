"""Carries a run out of JAX: python -m launch.convert --workdir=RUN --to=torch --out=FILE.pt.

Runs both sides on the run's own test images, prints the largest difference of the scores, and
leaves no file behind if it is above 1e-4. The file opens with ``torch`` alone:
``jaxdefect.convert.torch_modules.load(FILE)``.
"""

import pathlib

import jax
from absl import flags

from launch import command, experiment

TARGETS = ('torch',)


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('to', None, f'target: {", ".join(TARGETS)}', flag_values=values)
  flags.DEFINE_string('out', None, 'file to write', flag_values=values)
  flags.DEFINE_integer('images', 200, 'test images to compare on', flag_values=values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir', 'to', 'out')
  if values.to not in TARGETS:
    raise ValueError(f'--to is {values.to!r}; it can be {", ".join(TARGETS)}')
  directory = pathlib.Path(values.workdir)
  run = experiment.read_run(directory)
  if run.method.deploy is None:
    raise ValueError(f'the method {run.config.method.name} cannot be converted')
  try:
    from jaxdefect.convert import export, parity
  except ModuleNotFoundError as error:
    raise ValueError(f'{error}: pip install torch') from None
  source, split = experiment.read_split(directory, run.config)
  indices = (split.test or split.train)[: values.images]
  batches = experiment.eval_batches(run.config, source, indices, run.fitted.classes)
  family, arguments, arrays = run.method.deploy(run.fitted)
  arguments['image_size'] = list(run.config.data.image_size)
  predict = jax.jit(lambda batch: run.method.predict(run.fitted, batch))
  results = []

  def check(module):
    results.append(parity.compare(predict, module, batches))

  export.write(values.out, family, arguments, arrays, check=check)
  (result,) = results
  print(
    f'largest difference {result.largest:.1e} on {result.n} images, '
    f'{result.equal} of them decided the same: {values.out}'
  )


if __name__ == '__main__':
  command.run(define, main)
