"""What a device can do, measured, and what of it a program uses."""

import math
from collections.abc import Callable
from typing import Any


def device_rates(*, side: int = 8192, numbers: int = 2**29, rounds: int = 7) -> dict[str, float]:
  """Rates of large matrix products and of a large copy on JAX's default device.

  Args:
    side: of the square matrices, of normal numbers.
    numbers: float32, that are read and written.
    rounds: of ten products or copies each; the median counts.

  Returns:
    Operations per second, two per product of two numbers, of 'bfloat16', 'float32' as
    ``jax.default_matmul_precision`` has it (on a GPU by default TF32) and 'float32 highest'; and
    'copy', bytes read and written per second.
  """
  import jax
  import jax.numpy as jnp

  pair = [jax.random.normal(key, (side, side)) for key in jax.random.split(jax.random.key(0))]
  half = [matrix.astype(jnp.bfloat16) for matrix in pair]
  rates = {
    name: 2 * side**3 / _seconds(jax.jit(product), operands, rounds)
    for name, product, operands in (
      ('bfloat16', jnp.matmul, half),
      ('float32', jnp.matmul, pair),
      ('float32 highest', lambda a, b: jnp.matmul(a, b, precision='highest'), pair),
    )
  }
  x = jnp.ones(numbers)
  rates['copy'] = 2 * x.nbytes / _seconds(jax.jit(lambda x: -x), [x], rounds)
  return rates


def _seconds(function: Callable, operands: list[Any], rounds: int) -> float:
  import jax

  from benchmarks import timing

  def call() -> None:
    result = None
    for _ in range(10):
      result = function(*operands)
    jax.block_until_ready(result)

  return timing.take_turns({'it': call}, rounds=rounds)['it']['median'] / 10


def product_flops(function: Callable, *operands: Any) -> int:
  """Operations of the convolutions and matrix products of a function, forward.

  Counted in the program as it is written, two per product of two numbers; what XLA counts of a
  compiled one leaves out what it has handed to a library.

  Args:
    function: of arrays.
    *operands: arrays, or shapes and types.
  """
  import jax

  return _count(jax.make_jaxpr(function)(*operands).jaxpr)


def _count(jaxpr: Any) -> int:
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name in ('conv_general_dilated', 'dot_general'):
      left, right = (one.aval.shape for one in equation.invars)
      outputs = math.prod(equation.outvars[0].aval.shape)
      if name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        terms = math.prod(left[axis] for axis in contracted)
      else:
        features = right[equation.params['dimension_numbers'].rhs_spec[0]]
        terms = math.prod(right) // features  # kernels hold the channels of one group
      total += 2 * outputs * terms
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        total += _count(inner)
  return total


def use(
  *, seconds: float, images: int, model_flops: int, cost: Any, rates: dict[str, Any], dtype: str
) -> dict[str, Any]:
  """Images per second, and the fractions of the measured rates that a program reaches.

  Args:
    seconds: of a run of it.
    images: of a run.
    model_flops: operations that the model needs.
    cost: the program's ``cost_analysis()``; None where there is none.
    rates: as ``device_rates`` returns; what is missing gives no fraction.
    dtype: 'bfloat16' or 'float32'.
  """
  cost = cost or {}
  flops = {'model': model_flops, 'compiled program': cost.get('flops')}
  traffic = cost.get('bytes accessed')

  def fraction(amount: float | None, rate: str) -> float | None:
    return amount / seconds / rates[rate] if amount and rates.get(rate) else None

  return {
    'images_per_second': images / seconds,
    'flops': flops,
    'bytes_accessed': traffic,
    'fraction_of_matrix_rate': {name: fraction(one, dtype) for name, one in flops.items()},
    'fraction_of_copy_rate': fraction(traffic, 'copy'),
  }
