"""The toy run as a launcher, for one process or several: what the tests of processes start."""

import importlib.util
import pathlib

import jax
from absl import flags

from jaxdefect import train
from launch import command

SPEC = importlib.util.spec_from_file_location(
  'linear_run', pathlib.Path(__file__).with_name('linear_run.py')
)
linear_run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(linear_run)


class Share(linear_run.Batches):
  """This process's rows of the toy's batches."""

  def __next__(self):
    batch, rank, count = super().__next__(), jax.process_index(), jax.process_count()
    return {key: value[rank::count] for key, value in batch.items()}


def define(values: flags.FlagValues) -> None:
  command.define_processes(values)
  flags.DEFINE_string('directory', None, 'of the run', flag_values=values)
  flags.DEFINE_integer('devices', 1, 'over all processes', flag_values=values)


def main(values: flags.FlagValues) -> None:
  train.processes.start(
    coordinator=values.coordinator, count=values.processes, index=values.process
  )
  train.fit(
    linear_run.make(average_decay=0.9, axis_name=train.parallel.axis_name(values.devices)),
    jax.random.key(0),
    linear_run.SPEC,
    Share(delay=0.01),
    steps=linear_run.STEPS,
    directory=values.directory,
    evaluate=linear_run.corner,
    evaluate_every=30,
    best='corner',
    checkpoint_every=20,
    devices=values.devices,
    progress=False,
  )


if __name__ == '__main__':
  command.run(define, main)
