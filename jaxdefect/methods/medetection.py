r"""MeDetection: is this product good, learned from other products (Zhang et al. 2023, source C).

A Siamese network sees a picture and a defect-free one of the same product; what differs goes
through 4Conv with coordinate attention to one logit (figure 2). Its weights are meta-learned over
many products (Algorithm 1), so that a few pictures of a new one are enough to fine-tune them:

.. math::
  \theta'_i = \theta - \alpha \nabla_\theta \ell_{T_i}(f_\theta), \qquad
  \theta \leftarrow \theta - \beta \nabla_\theta \sum_i \ell_{T_i}(f_{\theta'_i})

with the exact second-order gradient. ``first_order=True`` leaves the second derivatives out,
``adapts='head'`` moves the linear layer alone (ANIL), and with ``reset_head=True`` too it is what
the authors published; ``inner_steps=0`` is joint training on all products.

The policy for normalisation: statistics are always those of the support set. In meta-training
support and query pass the network together and the support counts alone, so the gradient flows
through its statistics; ``adapt`` measures them once, at the fine-tuned weights, and ``predict``
uses them as they are: a picture's score depends on no other picture.

What a picture is compared with is drawn anew in every step, in fine-tuning as in meta-training: a
network that saw a picture with the same few references each time would learn the pairs by heart.

Shape legend: T tasks, S support and Q query pictures of a task, N pictures, R references, H x W
pixels, E epochs of fine-tuning.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import losses, models, optim
from jaxdefect.contracts import (
  Batch,
  ClassScores,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
)
from jaxdefect.data import support_set
from jaxdefect.data.augment_references import random_views_together
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels

CLASSES = ('good', 'defect')
_HEAD, _RATES = 'fc', 'inner_rates'


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  stem: Literal['conv', 'vgg'] = 'conv',
  width: int = 32,
  blocks: int = 4,
  siamese: bool = True,
  attention: Literal['low', 'high', 'multiple'] | None = 'low',
  pool: Literal['pyramid', 'mean'] = 'pyramid',
  inner_rate: float = 0.01,
  inner_steps: int = 1,
  first_order: bool = False,
  adapts: Literal['all', 'head'] = 'all',
  reset_head: bool = False,
  inner_rates: optim.inner_rates.InnerRates = 'fixed',
  fine_tune_rate: float = 1e-4,
  fine_tune_epochs: int = 50,
  fine_tune_batch: int = 32,
  patience: int | None = 10,
  references: int = 5,
  nearest: int | None = None,
  augmentation: dict[str, Any] | None = None,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes MeDetection.

  A training batch is an episode batch (``data.episodes``): ``'support'`` and ``'query'`` with a
  leading task axis. All other batches are ordinary ones; where they bring a ``'reference'`` of
  their own (a template), it is used in place of the ones that ``adapt`` keeps.

  Args:
    optimizer: optax transformation of the outer loop (paper: Adam, 1e-3, b1 0.5).
    stem: what both streams of the Siamese network pass: two light convolutions, or the published
      VGG-like stack (about 58 GFLOP per picture pair at 256 x 256).
    width: channels of 4Conv.
    blocks: of 4Conv; each halves the map.
    siamese: False hands the picture's own features on (Table 5, -SN).
    attention: place of the coordinate attention; None has none (Table 5, -CA).
    pool: spatial pyramid of maxima (4, 2, 1), or the mean.
    inner_rate: alpha.
    inner_steps: of the inner loop; 0 is joint training.
    first_order: leave out the second derivatives.
    adapts: what the inner loop moves: all parameters (MAML) or the linear layer (ANIL).
    reset_head: the inner loop starts from a linear layer of zeros, as in the authors' code.
    inner_rates: ``'fixed'`` is alpha everywhere; else rates are meta-learned that start there, one
      for every number of every parameter (``'per_parameter'``, Meta-SGD), or one for each parameter
      and inner step (``'per_step'``, MAML++), and ``adapt`` begins with the inner loop.
    fine_tune_rate: Adam's rate in ``adapt``.
    fine_tune_epochs: at most so many, ``adapt``; 0 only measures statistics.
    fine_tune_batch: pictures per step of ``adapt``, good and defective ones in equal shares.
    patience: epochs without a better validation loss after which ``adapt`` stops, where the
      references bring validation pictures; their best epoch is kept then.
    references: R, good pictures of the support set that ``adapt`` keeps for ``predict`` to compare
      with; while it fine-tunes, each picture is compared with one of all the good ones (with
      ``nearest``, with R of them).
    nearest: for each picture take that many of the kept references, the most alike (a remedy for
      products that lie in different positions); None takes all R.
    augmentation: arguments of ``data.augment.random_views``, the same view for a picture and its
      references; None trains on the pictures as they are.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters and losses stay float32.
    accumulate: parts in which a device goes through its tasks, see ``optim.gradient_step``.
    axis_name: the device axis, over which tasks are spread.

  Returns:
    The ``Method``; ``predict`` gives ``ClassScores`` of ('good', 'defect').

  Raises:
    ValueError: an argument that is none of its choices.
  """
  if adapts not in ('all', 'head'):
    raise ValueError(f'adapts is {adapts!r}; it can be all, head')
  if inner_rates not in optim.inner_rates.KINDS:
    kinds = ', '.join(optim.inner_rates.KINDS)
    raise ValueError(f'inner_rates is {inner_rates!r}; it can be {kinds}')
  if nearest is not None and not 1 <= nearest <= references:
    raise ValueError(f'nearest is {nearest}; it can be 1 to {references}, the references kept')
  architecture: dict[str, Any] = {
    'stem': stem,
    'width': width,
    'blocks': blocks,
    'siamese': siamese,
    'attention': attention,
    'pool': pool,
    'nearest': nearest,
  }
  # Momentum 0: statistics are those of one support set, not of the tasks before it.
  network = models.medetection(**architecture, momentum=0.0, dtype=dtype)
  count = references  # adapt has another use for the name
  moves = None if adapts == 'all' else (lambda path: path[0] == _HEAD)
  rule = optimizer or optax.identity()

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def views(key: jax.Array, batch: Batch) -> Batch:
    """Normalised pictures and references of N pictures, in the same random view."""
    image, reference, index = batch['image'], batch['reference'], batch['index']
    if augmentation is not None:
      image, reference = random_views_together(key, image, reference, index, **augmentation)
    return {**batch, 'image': pixels(image), 'reference': pixels(reference)}

  def network_params(params: Any) -> dict:
    return {name: leaf for name, leaf in params.items() if name != _RATES}

  def where_it_starts(params: Any) -> dict:
    """The parameters that the inner loop moves."""
    theta = network_params(params)
    if reset_head:
      theta[_HEAD] = jax.tree.map(jnp.zeros_like, theta[_HEAD])
    return theta

  def inner_loop(params: Any) -> dict[str, Any]:
    """The settings of the inner loop, with its learned rates where there are any."""
    rates = {'learning_rate': inner_rate}
    if _RATES in params:
      how: Any = {'kind': inner_rates, 'num_steps': inner_steps}
      rates = optim.inner_rates.learned_rates(params[_RATES], **how)
    return {**rates, 'num_steps': inner_steps, 'adapted': moves}

  def forward(params: Any, statistics: Any, batch: Batch, counted: jax.Array | None) -> tuple:
    """Logits [N] and statistics: of the counted pictures, or with None the given ones."""
    outputs, updated = network.apply(
      {'params': params, 'batch_stats': statistics},
      batch['image'],
      batch['reference'],
      train=counted is not None,
      valid=counted,
      mutable=['batch_stats'],
    )
    return outputs.logit, updated['batch_stats']

  def cross_entropy(logit: jax.Array, batch: Batch) -> jax.Array:
    """Equation 3 with the sign of a loss, as a mean over the valid pictures."""
    each = losses.sigmoid_cross_entropy(logit, batch['label'] > 0)
    return jnp.where(batch['valid'], each, 0.0).sum() / jnp.maximum(batch['valid'].sum(), 1)

  def own_loss(params: Any, statistics: Any, batch: Batch) -> jax.Array:
    """Of a batch with its own statistics."""
    return cross_entropy(forward(params, statistics, batch, batch['valid'])[0], batch)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    picture = spec.batch['support' if 'support' in spec.batch else 'image']
    shape = (picture['image'] if isinstance(picture, dict) else picture).shape[-3:]
    blank = jnp.zeros((1, *shape), jnp.float32)
    variables = network.init(key, blank, blank)
    variables = {name: variables[name] for name in ('params', 'batch_stats')}
    if pretrained is not None:
      variables = models.merge_pretrained(variables, pretrained)
    params = dict(variables['params'])
    if inner_rates != 'fixed':
      start: Any = {'kind': inner_rates, 'learning_rate': inner_rate, 'num_steps': inner_steps}
      params[_RATES] = optim.inner_rates.initial_log_rates(params, **start)
    return optim.initial_state(params, {'batch_stats': variables['batch_stats']}, rule)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    theta, statistics = where_it_starts(params), model_state['batch_stats']

    def flat(part: Batch) -> Batch:
      return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), part)

    # The same key twice: a picture's view follows from its index.
    support, query = (
      jax.tree.map(
        lambda leaf, like: leaf.reshape(*like.shape[:2], *leaf.shape[1:]),
        views(key, flat(batch[part])),
        batch[part],
      )
      for part in ('support', 'query')
    )

    def support_loss(params: Any, support: Batch) -> tuple:
      return own_loss(params, statistics, support), {}

    def query_loss(params: Any, support: Batch, query: Batch):
      both = jax.tree.map(lambda *parts: jnp.concatenate(parts), support, query)
      size = support['valid'].shape[0]
      counted = both['valid'] & (jnp.arange(both['valid'].shape[0]) < size)
      logit, _ = forward(params, statistics, both, counted)
      right = ((logit[size:] > 0) == (query['label'] > 0)) & query['valid']
      moved = jax.tree.map(jnp.subtract, params, theta)
      return cross_entropy(logit[size:], query), {
        'accuracy': right.sum() / jnp.maximum(query['valid'].sum(), 1),
        'movement': optax.tree.norm(moved) / optax.tree.norm(theta),
      }

    query_losses, seen = optim.maml_losses(
      support_loss,
      theta,
      support,
      query,
      **inner_loop(params),
      first_order=first_order,
      query_loss=query_loss,
      aux=True,
    )
    real = batch['support']['valid'].any(1) & batch['query']['valid'].any(1)  # [T]
    weight = real.sum().astype(jnp.float32)

    def total(values: jax.Array) -> jax.Array:
      return jnp.where(real, values, 0.0).sum()

    scalars = {name: (total(values), weight) for name, values in seen.items()}
    # Statistics belong to a support set: adapt measures them, here they stay as they were.
    return total(query_losses), (weight, model_state, scalars)

  step = optim.gradient_step(loss, rule, axis_name=axis_name, accumulate=accumulate)

  @jax.jit
  def measure(params: Any, statistics: Any, batch: Batch) -> Any:
    return forward(params, statistics, batch, batch['valid'])[1]

  @jax.jit
  def score(params: Any, statistics: Any, batch: Batch) -> jax.Array:
    return forward(params, statistics, batch, None)[0]

  def with_references(batch: Batch, kept: Any) -> Batch:
    """Normalised pixels; the batch's own references go before the kept ones."""
    reference = pixels(batch.get('reference', kept))
    return {**batch, 'image': pixels(batch['image']), 'reference': reference}

  tuner = optax.adam(fine_tune_rate, b1=0.5)

  @jax.jit
  def tune(statistics: Any, key: jax.Array, carry: Any, batch: Batch) -> tuple:
    """One step of fine-tuning: carry and loss."""
    value, gradient = jax.value_and_grad(own_loss)(carry[0], statistics, views(key, batch))
    updates, moments = tuner.update(gradient, carry[1], carry[0])
    return (optax.apply_updates(carry[0], updates), moments), value

  @jax.jit
  def descend(params: Any, statistics: Any, batch: Batch) -> Any:
    """The inner loop on a batch of the support set."""
    theta, settings = where_it_starts(params), inner_loop(params)
    return optim.inner_loop(lambda p, b: own_loss(p, statistics, b), theta, batch, **settings)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Keeps good pictures to compare with, fine-tunes on the rest, and fixes the statistics.

    ``memory`` gets ``'references'`` [R, H, W, 3], the ``'epoch'`` whose loss on the validation
    pictures is least (the last one without such), and the ``'history'`` [E + 1] up to the end.
    """
    if tuple(references.classes) != CLASSES:
      raise ValueError(
        f'the classes of the references are {", ".join(references.classes)}; medetection tells '
        f'{CLASSES[0]!r} from {CLASSES[1]!r} and needs pictures of both'
      )
    key_kept, key_rows, key_tune = jax.random.split(key, 3)
    support = support_set.gather(references.batches)
    kept, support = support_set.set_aside(key_kept, support, count)
    params = network_params(fitted.params)
    start = fitted.model_state['batch_stats']
    rows = optim.balanced_rows(
      key_rows, support['label'], min(fine_tune_batch, support['label'].size)
    )
    if _RATES in fitted.params:
      first = with_references(support_set.rows(support, rows[0]), kept)
      params = descend(fitted.params, start, first)
    checked = {} if references.validation is None else support_set.gather(references.validation)

    def statistics(params: Any) -> Any:
      """Means over class-balanced batches of the support set."""
      batches = [with_references(support_set.rows(support, r), kept) for r in rows]
      parts = [measure(params, start, batch) for batch in batches]
      return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)

    def validate(carry: Any) -> dict[str, float]:
      """What the validation pictures say."""
      params, measured = carry[0], statistics(carry[0])
      batches = support_set.in_order(checked, fine_tune_batch)
      logit = np.concatenate([score(params, measured, with_references(b, kept)) for b in batches])
      return optim.two_class_figures(logit[: checked['label'].size], checked['label'])

    good = np.concatenate([kept, support['image'][support['label'] == 0]])

    def compare(key: jax.Array, carry: Any, batch: Batch) -> tuple:
      """A step in which what each picture is compared with is drawn anew."""
      key_drawn, key = jax.random.split(key)
      shape = (batch['label'].size, 1 if nearest is None else count)
      reference = support_set.draw(key_drawn, good, shape)
      return tune(start, key, carry, {'reference': reference, **batch})

    tuned = optim.fine_tune(
      key_tune,
      compare,
      (params, tuner.init(params)),
      support,
      epochs=fine_tune_epochs,
      batch_size=fine_tune_batch,
      validate=validate if checked else None,
      patience=patience if checked else None,
    )
    return dataclasses.replace(
      fitted,
      params=tuned.carry[0],
      model_state={**fitted.model_state, 'batch_stats': statistics(tuned.carry[0])},
      memory={
        'references': kept,
        'history': tuned.history,
        'epoch': np.asarray(tuned.epoch, np.int32),
      },
    )

  def outputs(fitted: Fitted, batch: Batch, tap: jax.Array | None = None) -> Any:
    if 'reference' not in batch and not fitted.memory:
      raise ValueError('medetection compares with defect-free pictures; adapt gives it some')
    batch = with_references(batch, fitted.memory['references'] if fitted.memory else None)
    return network.apply(
      {'params': network_params(fitted.params), 'batch_stats': fitted.model_state['batch_stats']},
      batch['image'],
      batch['reference'],
      tap=tap,
    )

  def class_scores(logit: jax.Array) -> ClassScores:
    scores = jnp.stack([-logit, logit], axis=-1) / 2
    return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return class_scores(outputs(fitted, batch).logit)

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    seen = outputs(fitted, batch, tap)
    return class_scores(seen.logit), seen.feature_map

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError('medetection has no reference images yet: call adapt before it is converted')
    arguments = {
      **architecture,
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    arrays = {
      'params': network_params(fitted.params),
      'batch_stats': fitted.model_state['batch_stats'],
      'memory': {'references': np.asarray(fitted.memory['references'])},
    }
    return 'medetection', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)
