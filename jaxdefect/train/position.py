"""Where a run stands, apart from its ``State``: key, place in the data, open log window, clock."""

import base64
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Position(NamedTuple):
  """What a checkpoint keeps beside the arrays, so that a run goes on as if never interrupted.

  Attributes:
    key: typed PRNG key of all steps.
    data: what ``get_state`` of the batch iterator gave; None at the start.
    window: record of ``metric_log.Window``.
    seconds: wall time spent so far.
  """

  key: jax.Array
  data: Any = None
  window: dict[str, Any] | None = None
  seconds: float = 0.0


def to_json(position: Position) -> dict[str, Any]:
  """Plain JSON; iterators give JSON (grain's datasets) or bytes (grain's ``DataLoader``)."""
  data = position.data
  if isinstance(data, bytes):
    data = {'base64': base64.b64encode(data).decode()}
  else:
    data = {'json': data}
  return {
    'key': jax.random.key_data(position.key).tolist(),
    'key_impl': str(jax.random.key_impl(position.key)),
    'data': data,
    'window': position.window,
    'seconds': position.seconds,
  }


def from_json(record: dict[str, Any]) -> Position:
  """The inverse of :func:`to_json`."""
  data = record['data']
  return Position(
    key=jax.random.wrap_key_data(jnp.array(record['key'], jnp.uint32), impl=record['key_impl']),
    data=base64.b64decode(data['base64']) if 'base64' in data else data['json'],
    window=record['window'],
    seconds=record['seconds'],
  )
