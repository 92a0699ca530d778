"""What a result came from: the software and the device."""

import os
import pathlib
import platform
import re
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict


def stamp(config: ConfigDict) -> dict[str, Any]:
  """What every report says of where it comes from: the day, the settings and the versions."""
  day = time.strftime('%Y-%m-%d')
  return {'date': day, 'config': config.to_dict(), 'versions': versions()}


def versions() -> dict[str, str]:
  """The software and the device that a result came from."""
  import flax
  import jaxlib
  import optax

  import jaxdefect

  device = jax.devices()[0]
  return {
    'jaxdefect': jaxdefect.__version__,
    'python': platform.python_version(),
    'jax': jax.__version__,
    'jaxlib': jaxlib.__version__,
    'flax': flax.__version__,
    'optax': optax.__version__,
    'numpy': np.__version__,
    'device': f'{device.device_kind} ({device.platform}, {os.cpu_count()} cores{_processor()})',
  }


def _processor() -> str:
  """``', AMD EPYC'``, where the system says what it is."""
  path = pathlib.Path('/proc/cpuinfo')
  if not path.exists():
    return ''
  found = re.search(r'^model name\s*:\s*(.+)$', path.read_text(), re.MULTILINE)
  return f', {found.group(1).strip()}' if found else ''
