"""Memory that a process keeps."""

import platform
import resource

import numpy as np
import pytest

from jaxdefect import train


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='malloc of glibc alone has the knobs')
def test_freed_memory_is_not_faulted_in_again():
  train.keep_freed_memory()

  def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.zeros(2**24, np.uint8).fill(1)  # 4,096 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

  faults()
  assert faults() < 400
