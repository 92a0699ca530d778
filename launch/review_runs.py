"""The runs that are the models of a review: how its store names them, and where they lie now.

A store lies in the folder of the run that the review began with, and names runs from there: '.' is
that run, 'review/runs/<digest>' one that was trained on verdicts. So the folder may be renamed,
moved or copied, and --workdir be written in any way.
"""

import pathlib

from jaxdefect.review import Store
from launch import finished_run

FIRST = '.'
RUNS = 'review/runs'
# The copies of what a model was retrained on, in the folder of its run.
PICTURES = 'pictures'


def live(store: Store, directory: pathlib.Path) -> tuple[int, pathlib.Path]:
  """Number and folder of the model that predicts.

  Args:
    store: of the review; it has a model.
    directory: of the run that the review began with.
  """
  found = store.live()
  assert found is not None
  return found[0], place(directory, found[1])


def place(directory: pathlib.Path, kept: str) -> pathlib.Path:
  """Where the run of a model lies, by what the store keeps of it."""
  path = directory / kept
  # Names that were kept as they had been typed became relative when the store was first opened by
  # this version (review/migrations.py). Where one run had two of them, only one could.
  return path if path.is_dir() else directory / RUNS / pathlib.PurePath(kept).name


def read(directory: pathlib.Path, path: pathlib.Path) -> finished_run.Finished:
  """Reads a model's run, whose config may name the place where it was trained.

  Args:
    directory: of the run that the review began with.
    path: of the model's run, as ``live`` returns it.
  """
  run = finished_run.read_run(path)
  if path != directory:
    run.config.data.dir = str(path / PICTURES)
  return run
