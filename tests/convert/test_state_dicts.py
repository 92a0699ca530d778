"""Reading weight files."""

import builtins

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from jaxdefect.convert import state_dicts

_KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def test_reads_what_was_written(tmp_path):
  path = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file({'fc.weight': _KERNEL}, path)
  state = state_dicts.read(path)
  assert list(state) == ['fc.weight']
  np.testing.assert_array_equal(state['fc.weight'], _KERNEL)


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'epoch': 3}])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_wrappers_prefixes_and_counters_go(tmp_path, wrap, prefix):
  path = tmp_path / 'a.pth'
  state = {
    f'{prefix}fc.weight': torch.from_numpy(_KERNEL),
    f'{prefix}bn.num_batches_tracked': torch.tensor(5),
  }
  torch.save(wrap(state), path)
  state = state_dicts.read(path)
  assert list(state) == ['fc.weight']
  np.testing.assert_array_equal(state['fc.weight'], _KERNEL)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_raised(tmp_path, suffix, dtype):
  path = tmp_path / f'a{suffix}'
  tensors = {'fc.weight': torch.from_numpy(_KERNEL).to(dtype)}
  save = torch.save if suffix == '.pth' else safetensors.torch.save_file
  save(tensors, path)
  value = state_dicts.read(path)['fc.weight']
  assert value.dtype == np.float32
  np.testing.assert_array_equal(value, tensors['fc.weight'].float().numpy())


def test_checksum_is_sha256(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  # FIPS 180-2, appendix B.1
  expected = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  assert state_dicts.sha256(tmp_path / 'a') == expected


@pytest.mark.parametrize('content', [b'', b'no weights at all', b'\x80\x02garbage'])
@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_rejects_corrupt_file(tmp_path, suffix, content):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f'a{suffix} is not a') as error:
    state_dicts.read(path)
  assert '\n' not in str(error.value)


def test_rejects_truncated_file(tmp_path):
  path = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file({'fc.weight': _KERNEL}, path)
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(ValueError, match='not a readable safetensors file'):
    state_dicts.read(path)


def test_rejects_missing_file(tmp_path):
  with pytest.raises(ValueError, match=r'weight file .*b\.pth does not exist'):
    state_dicts.read(tmp_path / 'b.pth')


def test_rejects_other_files(tmp_path):
  with pytest.raises(ValueError, match=r'photo\.jpg is no weight file: its name must end in'):
    state_dicts.read(tmp_path / 'photo.jpg')


@pytest.mark.parametrize(
  ('saved', 'sentence'),
  [
    ([torch.zeros(2)], 'holds a list, not a state dict'),
    ({'fc.weight': 3}, "holds a int at 'fc.weight'"),
    ({'fc.weight': torch.zeros(2, dtype=torch.int64)}, "holds int64 at 'fc.weight'"),
    ({'fc.weight': torch.tensor([1.0, float('nan')])}, "at 'fc.weight' that are not finite"),
    ({}, 'holds no weights'),
    ({'state_dict': {}}, 'holds no weights'),
  ],
)
def test_rejects_what_is_no_state_dict(tmp_path, saved, sentence):
  torch.save(saved, tmp_path / 'a.pth')
  with pytest.raises(ValueError, match=sentence):
    state_dicts.read(tmp_path / 'a.pth')


def test_rejects_pickled_modules(tmp_path):
  torch.save(torch.nn.Linear(2, 2), tmp_path / 'a.pth')
  with pytest.raises(ValueError, match='is not a PyTorch file of plain tensors'):
    state_dicts.read(tmp_path / 'a.pth')


def test_says_so_where_torch_is_missing(tmp_path, monkeypatch):
  path = tmp_path / 'a.pth'
  torch.save({'fc.weight': torch.zeros(2)}, path)
  real = builtins.__import__

  def without_torch(name, *args, **kwargs):
    if name == 'torch':
      raise ModuleNotFoundError("No module named 'torch'")
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without_torch)
  with pytest.raises(ModuleNotFoundError, match=r'torch is not installed: pip install'):
    state_dicts.read(path)
