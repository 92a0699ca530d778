"""Which of two formulations of an operation runs: plain JAX or a Pallas kernel."""

from collections.abc import Callable
from typing import Any

from jax import lax

IMPLEMENTATIONS = ('xla', 'pallas', 'pallas_interpret')


def implementation_or_default(implementation: str | None) -> str:
  """Checks the name; None becomes the default.

  Args:
    implementation: one of ``IMPLEMENTATIONS``, or None.

  Returns:
    One of ``IMPLEMENTATIONS``.

  Raises:
    ValueError: for another name.
  """
  if implementation is None:
    return 'xla'  # no kernel has been measured on a GPU
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'implementation must be None or one of {IMPLEMENTATIONS}, came as {implementation!r}.'
    )
  return implementation


def run(
  implementation: str, kernel: Callable[..., Any], twin: Callable[..., Any], *arrays: Any
) -> Any:
  """Calls the kernel or its twin.

  With 'pallas' the platform that the program is compiled for decides, not the devices that are
  here: CUDA gets the kernel, all others the twin.

  Args:
    implementation: one of ``IMPLEMENTATIONS``.
    kernel: takes the arrays and ``interpret``.
    twin: takes the arrays.
    *arrays: what both are about.

  Returns:
    What they return.
  """
  if implementation == 'pallas_interpret':
    return kernel(*arrays, interpret=True)
  if implementation == 'pallas':
    return lax.platform_dependent(*arrays, cuda=kernel, default=twin)
  return twin(*arrays)
