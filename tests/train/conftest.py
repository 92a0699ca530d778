"""The toy run that the tests of training share."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope='session')
def linear():
  """The module ``linear_run``, which is also a script."""
  path = pathlib.Path(__file__).parent / 'linear_run.py'
  spec = importlib.util.spec_from_file_location('linear_run', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
