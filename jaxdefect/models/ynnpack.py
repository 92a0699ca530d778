"""Which library XLA hands convolutions to on a CPU: YNNPACK or Eigen.

Since 0.10 JAX's CPU programs pass their convolutions to YNNPACK. Forward it is as fast as Eigen; a
kernel's gradient, whose window is as large as the image, takes it three to four times as long
(8x40x40x128, 3 x 3, one core of a Xeon: 115 ms and 24 ms), and strided convolutions up to twice as
long. A ResNet-50 training step (batch 8, 224 x 224, two cores) takes 1.73 s with it and 1.13 s
without. Its sums are worth having: without them the step takes twice as long. So they alone stay.
"""

import functools
import importlib.util
import mmap
import os
import pathlib

import jax
import jax.numpy as jnp
import jaxlib
from jax import lax

FLAG = 'xla_cpu_experimental_ynn_fusion_type'
# Of what XLA gives to YNNPACK this stays there; products are as fast with Eigen.
_KEPT = 'LIBRARY_FUSION_TYPE_REDUCE'


def leave_convolutions_to_eigen() -> None:
  """Adds the flag to ``XLA_FLAGS``; XLA reads it once, so call it before JAX computes anything.

  The launchers and benchmarks do. Nothing is added where ``XLA_FLAGS`` names the flag already. XLA
  ends a process that has an unknown flag, so nothing is added either where the installed jaxlib
  does not know it, or where the plug-in of an accelerator, which reads the flags too, may be
  loaded.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if FLAG not in flags and _is_known() and not _loads_a_plugin():
    os.environ['XLA_FLAGS'] = f'{flags} --{FLAG}={_KEPT}'.strip()


@functools.cache
def convolves() -> bool:
  """Whether YNNPACK gets this process's convolutions: what XLA makes of a small one says so."""

  def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 32), (3, 3, 32, 32))]
  program = jax.jit(convolution).lower(*shapes).compile().as_text()
  return program is not None and 'ynn_fusion' in program


def _is_known() -> bool:
  for library in pathlib.Path(jaxlib.__file__).parent.glob('libjax_common.*'):
    with library.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
      return held.find(FLAG.encode()) >= 0
  return False


def _loads_a_plugin() -> bool:
  installed = any(importlib.util.find_spec(name) for name in ('jax_plugins', 'libtpu'))
  return installed and os.environ.get('JAX_PLATFORMS') != 'cpu'
