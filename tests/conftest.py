"""Shared fixtures: CPU devices, the compilation cache, and where the real data lie."""

import gc
import os
import pathlib
from importlib.metadata import version

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the time of the tests is compiling for the CPU. Fewer LLVM passes, and loops from XLA's
# LLVM emitter in place of its MLIR one, take a third less and compute the same operations; code in
# one part, as the other core compiles for another test, a tenth less; short code, without unrolled
# loops and vectors made of scalars, another third; machine code left as it comes, a quarter of what
# is left. Level 0 and --fast-isel are quicker still but wrong: their programs read memory that
# nothing has written (jaxlib 0.10.2).
# XLA takes the last of two values, so flags from outside win; one that it does not know stops it.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_backend_optimization_level=1',
    (
      '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 '
      '--xla_backend_extra_options=xla_cpu_optimize_for_size,xla_cpu_disable_slp_vectorizer,'
      'xla_cpu_disable_loop_unrolling,--disable-cgp,--disable-lsr,--disable-copyprop,'
      '--enable-misched=false,--disable-machine-cse,--disable-machine-licm,--disable-machine-sink,'
      '--disable-postra-machine-licm,--disable-branch-fold,--disable-block-placement,'
      '--disable-early-taildup,--disable-tail-duplicate'
    )
    * version('jaxlib').startswith('0.10.'),
    os.environ.get('XLA_FLAGS', ''),
  ]
).strip()

import jax

# Eight fake devices, so that every test can compare many with one.
jax.config.update('jax_num_cpu_devices', 8)
_CACHE = pathlib.Path(__file__).parent.parent / '.jax_cache'
jax.config.update('jax_compilation_cache_dir', str(_CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
# Traces are millions of Python objects; looking for cycles among them takes a tenth of the time.
gc.set_threshold(100_000, 20, 50)


# The files that take longest go first: one of them alone at the end would leave a core idle.
_LONG = ('test_parallel', 'test_methods', 'test_configs', 'test_method_files')


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(autouse=True, scope='module')
def _forget_programs():
  """Compiled programs of one file serve no other; all of them together take 8 GB."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='session')
def golden_dir() -> pathlib.Path:
  return pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session')
def data_dir() -> pathlib.Path:
  """The folder of real data sets; CI sets JAXDEFECT_DATA where they are present."""
  value = os.environ.get('JAXDEFECT_DATA')
  if not value:
    pytest.skip('JAXDEFECT_DATA is not set: no real data on this machine')
  folder = pathlib.Path(value)
  if not folder.is_dir():
    pytest.fail(f'JAXDEFECT_DATA is {value}, which is no folder')
  return folder
