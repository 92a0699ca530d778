"""The nouns that every room shares: batches, methods, predictions."""

from jaxdefect.contracts.batch import Batch, References, example_keys
from jaxdefect.contracts.method import DataSpec, Fitted, Method, State, to_fitted
from jaxdefect.contracts.predictions import AnomalyMaps, ClassScores, Detections

__all__ = [
  'AnomalyMaps',
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
