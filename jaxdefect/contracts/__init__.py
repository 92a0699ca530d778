"""The nouns that every room shares: batches, methods, predictions."""

from jaxdefect.contracts.batch import Batch, References, example_keys
from jaxdefect.contracts.method import DataSpec, Fitted, Method, State, to_fitted
from jaxdefect.contracts.new_class import NewClassError, refuse_new_classes
from jaxdefect.contracts.predictions import (
  RULES,
  VERDICTS,
  AnomalyMaps,
  ClassScores,
  Detections,
  Verdicts,
)

__all__ = [  # noqa: RUF022 (plain order, as everywhere)
  'AnomalyMaps',
  'Batch',
  'ClassScores',
  'DataSpec',
  'Detections',
  'Fitted',
  'Method',
  'NewClassError',
  'RULES',
  'References',
  'State',
  'VERDICTS',
  'Verdicts',
  'example_keys',
  'refuse_new_classes',
  'to_fitted',
]
