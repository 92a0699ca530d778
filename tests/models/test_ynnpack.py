"""Which library gets the convolutions of a process."""

import os
import subprocess
import sys

import pytest

from jaxdefect.models import ynnpack

_ASK = """
from jaxdefect.models import ynnpack
ynnpack.leave_convolutions_to_eigen()
print(ynnpack.convolves())
"""


def test_after_the_call_no_convolution_goes_to_ynnpack():
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  command = [sys.executable, '-c', _ASK]
  assert subprocess.check_output(command, env=environment, text=True).strip() == 'False'


@pytest.mark.parametrize('known', [True, False])
def test_flags_of_the_user_stay(monkeypatch, known):
  monkeypatch.setattr(ynnpack, '_is_known', lambda: known)
  monkeypatch.setenv('XLA_FLAGS', '--xla_a=1')
  ynnpack.leave_convolutions_to_eigen()
  ours = f' --{ynnpack.FLAG}=LIBRARY_FUSION_TYPE_REDUCE' * known
  assert os.environ['XLA_FLAGS'] == f'--xla_a=1{ours}'
  monkeypatch.setenv('XLA_FLAGS', f'--{ynnpack.FLAG}=')
  ynnpack.leave_convolutions_to_eigen()
  assert os.environ['XLA_FLAGS'] == f'--{ynnpack.FLAG}='


@pytest.mark.parametrize(('platforms', 'added'), [('cpu', True), ('', False)])
def test_a_plugin_that_may_be_loaded_is_spared(monkeypatch, platforms, added):
  monkeypatch.setattr(ynnpack.importlib.util, 'find_spec', lambda name: name == 'libtpu')
  monkeypatch.setenv('JAX_PLATFORMS', platforms)
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  ynnpack.leave_convolutions_to_eigen()
  assert (ynnpack.FLAG in os.environ.get('XLA_FLAGS', '')) == added


def test_a_flag_that_jaxlib_does_not_know_is_found_out(monkeypatch):
  monkeypatch.setattr(ynnpack, 'FLAG', 'xla_cpu_no_such_flag')
  assert not ynnpack._is_known()
