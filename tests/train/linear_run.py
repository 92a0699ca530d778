"""A linear classifier on made-up pixels, and a run of it: the smallest thing that ``fit`` trains.

As a script, ``python linear_run.py DIRECTORY``, it is the run that tests kill.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import optim, train
from jaxdefect.contracts import DataSpec, Method, example_keys

SPEC = DataSpec(batch={}, classes=('flat', 'scratch'), counts=(50, 50))
STEPS = 200


def make(
  *, axis_name=None, features=3, learning_rate=0.05, average_decay=None, prepare=None, empty=True
):
  """A method whose loss is masked, noisy per example, and leaves a frozen bias."""
  optimizer = optim.partition.freeze(
    optim.sgd(learning_rate=learning_rate, steps=STEPS, schedule='cosine'),
    lambda path: path == ('bias',),
  )

  def init(key, spec, pretrained=None):
    kernel = jax.random.normal(key, (features, len(spec.classes)))
    params = {'kernel': kernel, 'bias': jnp.zeros(len(spec.classes))} | (pretrained or {})
    model_state = {'seen': jnp.zeros(())}
    if empty:  # an array without elements, which Orbax cannot store
      model_state['bank'] = jnp.zeros((0, 3))
    return optim.initial_state(params, model_state, optimizer, average_decay=average_decay)

  def loss(key, params, model_state, batch):
    noise = jax.vmap(lambda k: jax.random.normal(k, (features,)))(example_keys(key, batch['index']))
    pixels = batch['image'].reshape(len(noise), -1)[:, :features] / 255 + 0.1 * noise
    logits = pixels @ params['kernel'] + params['bias']
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], 1)[:, 0]
    hits = (jnp.argmax(logits, 1) == batch['label']) & batch['valid']
    weight = jnp.sum(batch['valid'])
    model_state = model_state | {'seen': model_state['seen'] + 1}
    loss_sum = -jnp.sum(jnp.where(batch['valid'], log_p, 0))
    return loss_sum, (weight, model_state, {'accuracy': (jnp.sum(hits), weight)})

  def unused(*_):
    raise NotImplementedError

  return Method(
    init=init,
    prepare=prepare or (lambda key, state, references: state),
    step=optim.gradient_step(
      loss,
      optimizer,
      axis_name=axis_name,
      average_decay=average_decay,
      frozen=lambda path: path == ('bias',),
    ),
    adapt=unused,
    predict=unused,
  )


class Batches:
  """Endless batches; the last example of each is padding. Position saved as grain's are."""

  def __init__(self, size=4, delay=0.0):
    self._size, self._delay, self._position = size, delay, 0

  def __iter__(self):
    return self

  def __next__(self):
    time.sleep(self._delay)
    generator = np.random.default_rng(self._position)
    self._position += 1
    label = generator.integers(0, 2, self._size).astype(np.int32)
    image = generator.integers(0, 150, (self._size, 1, 1, 3)) + 100 * label[:, None, None, None]
    return {
      'image': image.astype(np.uint8),
      'label': label,
      'valid': np.arange(self._size) < self._size - 1,
      'index': generator.integers(0, 1000, self._size).astype(np.int32),
    }

  def get_state(self):
    return {'position': self._position}

  def set_state(self, state):
    self._position = state['position']


def corner(state):
  """An 'evaluation': one weight, which goes up and down."""
  return {'corner': state.params['kernel'][0, 0], 'seen': state.model_state['seen']}


if __name__ == '__main__':
  train.fit(
    make(average_decay=0.9),
    jax.random.key(0),
    SPEC,
    Batches(delay=0.005),
    steps=STEPS,
    directory=sys.argv[1],
    evaluate=corner,
    evaluate_every=30,
    best='corner',
    log_every=7,
    checkpoint_every=5,
    progress=False,
  )
