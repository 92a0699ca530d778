"""The nouns that every room shares: batches, methods, predictions."""

from jaxdefect.contracts.batch import Batch, References, example_keys
from jaxdefect.contracts.method import DataSpec, Fitted, Method, State, to_fitted
from jaxdefect.contracts.predictions import ClassScores, Detections

__all__ = [
  'Batch',
  'ClassScores',
  'DataSpec',
  'Detections',
  'Fitted',
  'Method',
  'References',
  'State',
  'example_keys',
  'to_fitted',
]
