"""Random networks with statistics of their own, so that nothing agrees by accident."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxdefect
from jaxdefect.convert import exported, parity

torch = pytest.importorskip('torch')


@pytest.fixture(autouse=True, scope='session')
def _one_thread():
  torch.set_num_threads(1)


@pytest.fixture
def randomise():
  """module, seed -> the module in evaluation mode with every BatchNorm array random."""

  def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
      for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
          norm.running_mean.normal_(0.0, 0.2, generator=generator)
          norm.running_var.uniform_(0.5, 1.5, generator=generator)
          norm.weight.uniform_(0.5, 1.5, generator=generator)
          norm.bias.normal_(0.0, 0.2, generator=generator)
        elif isinstance(norm, torch.nn.Conv2d):
          torch.nn.init.kaiming_normal_(norm.weight, nonlinearity='linear', generator=generator)
          if norm.bias is not None:
            norm.bias.normal_(0.0, 0.2, generator=generator)
        elif isinstance(norm, torch.nn.Linear):
          norm.weight.normal_(0.0, norm.in_features**-0.5, generator=generator)
          norm.bias.normal_(generator=generator)
    return module.eval()

  return randomise


@pytest.fixture
def gluon_state():
  """Twin, prefix -> its state dict under Gluon's names, numpy."""
  words = {'weight': 'gamma', 'bias': 'beta'}

  def gluon_state(module, prefix):
    state = {}
    for key, value in module.state_dict().items():
      *path, word = key.split('.')
      if word == 'num_batches_tracked':
        continue
      if 'batchnorm' in path[-1]:
        word = words.get(word, word)
      state[prefix + '_'.join((*path, word))] = value.numpy().copy()
    return state

  return gluon_state


_WITHOUT_JAX = """
import sys
for name in ('jax', 'jaxlib', 'flax', 'optax', 'safetensors'):
  sys.modules[name] = None
import numpy, torch
from jaxdefect.convert import twins
images = numpy.load(sys.argv[2])
with torch.inference_mode():
  scores = twins.load(sys.argv[1])(torch.from_numpy(images))[0]
numpy.save(sys.argv[3], scores.numpy())
"""


@pytest.fixture
def scores_without_jax(tmp_path):
  """An exported file and images -> scores of the file, in a process that has no JAX."""

  def scores(file, images):
    np.save(tmp_path / 'images.npy', images)
    files = [str(file), str(tmp_path / 'images.npy'), str(tmp_path / 'scores.npy')]
    subprocess.run(
      [sys.executable, '-W', 'error', '-c', _WITHOUT_JAX, *files],
      check=True,
      env={'PYTHONPATH': str(pathlib.Path(jaxdefect.__file__).parent.parent)},
      timeout=120,
    )
    return np.load(tmp_path / 'scores.npy')

  return scores


@pytest.fixture
def compared():
  """Our predict, a twin and batches -> the ``Parity`` of all pictures, padding left out."""

  def compare(predict, module, batches):
    ours, pictures = [], []
    for batch in batches:
      said = predict(batch)
      ours.append(jax.tree.map(lambda x, keep=batch['valid']: np.asarray(x)[keep], said))
      pictures += list(batch['image'][batch['valid']])
    together = jax.tree.map(lambda *parts: np.concatenate(parts), *ours)
    module.described = {}
    theirs = exported.run(exported.TorchModel(module), pictures)
    return parity.compare(together, parity.predictions(theirs))

  return compare
