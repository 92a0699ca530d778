"""Multi-training with a categorised GAN (He et al. 2019): two networks label what a third makes.

Y. He, K. Song, H. Dong, Y. Yan, 'Semi-supervised defect classification of steel surface based on
multi-training and generative adversarial network', Optics and Lasers in Engineering 122 (2019)
294-302; 99.56 % on NEU.

Its abstract is what we had of it: a *categorised* GAN makes many unlabelled pictures; two networks
of different kinds, the GAN's own and a residual network, learn from labelled and unlabelled
pictures together by 'multi-training', for which the two classifiers label; training is repeated.
What is below is chosen here, after papers near to it:

- The GAN is DCGAN's (``models.multi_training_gan``). Its discriminator is a classifier of K + 1
  classes, the last being 'made' (Odena 2016, Salimans et al. 2016), and its generator is told
  a class c that it shall show. With p over K + 1 classes, real pictures (x, y) and made ones
  x' = G(z, c),

    L_D = -log p_D(y | x) - log p_D(made | x') + w a(x') CE_D(x', y')
    L_G = -log p_D(c | x')
    L_R = CE_R(x, y) + w a(x') CE_R(x', y')

  where CE is over the K classes and R is the residual network.
- A made picture counts as unlabelled: c is what was wished for and not what became of it. Its label
  y' is the class that D and R both name, a(x') is 1 where they agree and both are at least
  ``confidence`` sure, else 0 (``ops.agreed_labels``); and 0 before step ``pseudo_from``, as the
  first pictures are noise. Labels are drawn anew in every step, so the training repeats itself.
- A step takes the three gradients at the parameters before it, then all networks move. Each batch
  comes with as many made pictures. The GAN works at its own size; what it sees is one random view
  of each picture, made smaller, and what it makes is made larger for R. Statistics of R are those
  of real pictures alone.
- R predicts, alone: it has the size and the start of the other recognisers of this library, the
  discriminator starts from nothing.

Shape legend: N images, H x W pixels, K classes, S side of the GAN's images, Z latent size.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxdefect import losses, models, ops, optim
from jaxdefect.contracts import (
  Batch,
  ClassScores,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
  example_keys,
  refuse_new_classes,
)
from jaxdefect.data import augment, view_geometry

GAN = ('generator', 'discriminator')


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  gan_optimizer: dict[str, Any] | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 0,
  update_statistics: bool = True,
  gan_size: int = 64,
  gan_width: int = 64,
  latent: int = 100,
  confidence: float = 0.9,
  pseudo_weight: float = 1.0,
  pseudo_from: int = 0,
  augmentation: dict[str, Any] | None = None,
  mean: tuple[float, ...] = ops.IMAGENET_MEAN,
  std: tuple[float, ...] = ops.IMAGENET_STD,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the multi-trained classifier.

  Args:
    optimizer: optax transformation of the residual network; None where nothing will be trained.
    gan_optimizer: arguments of ``optim.adam`` for generator and discriminator (DCGAN: a rate of
      2e-4 and b1 0.5); None gives them ``optimizer`` too.
    backbone: a name of ``models.backbone``, the residual network.
    stages: it ends after this stage; None for the whole network.
    width: channels of its first stage; 64 is the published network.
    frozen_stages: the stem and this many stages keep their parameters and statistics.
    update_statistics: False keeps its running statistics (needed by folded weights).
    gan_size: S, a power of two from 8 on.
    gan_width: W of generator and discriminator.
    latent: Z.
    confidence: probability that both classifiers must give to the class that they agree on.
    pseudo_weight: w, weight of the pictures that got a label so.
    pseudo_from: first step in which they count.
    augmentation: arguments of ``data.augment.random_views`` for the labelled pictures; None trains
      on them as they are. Its ``angle_limits`` are given by name: degrees for each class that has a
      direction.
    mean: per channel, in 0..1, subtracted from the pixels that the residual network sees.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the networks; parameters, pooling and losses stay float32.
    remat: as of ``models.backbone``: less memory for the gradient, more time.
    accumulate: 1, as BatchNorm of the GAN sees the whole batch.
    axis_name: the device axis, for BatchNorm and the gradients.

  Returns:
    The ``Method``. ``predict`` gives the residual network's logits and their softmax; ``adapt``
    drops the GAN, and cannot add a class.

  Raises:
    ValueError: gan_size is no power of two from 8 on; confidence outside [0, 1]; accumulate is
      not 1.
  """
  optim.accumulation.check(accumulate, 'BatchNorm of the GAN takes its statistics from the batch')
  if gan_size < 8 or gan_size & (gan_size - 1):
    raise ValueError(f'gan_size is {gan_size}; it must be a power of two, 8 or more.')
  if not 0 <= confidence <= 1:
    raise ValueError(f'confidence is {confidence}; it must be in [0, 1].')
  views = dict(augmentation or {})
  angle_limits = views.pop('angle_limits', None)
  trunk = models.backbone(
    backbone,
    stages=stages,
    width=width,
    frozen_stages=frozen_stages,
    update_statistics=update_statistics,
    dtype=dtype,
    axis_name=axis_name,
    remat=remat,
  )

  def residual(num_classes: int) -> models.Recogniser:
    return models.Recogniser(backbone=trunk, num_classes=num_classes)

  def gan(num_classes: int) -> dict[str, Any]:
    settings: Any = {'num_classes': num_classes, 'width': gan_width, 'axis_name': axis_name}
    return {
      'generator': models.ClassGenerator(gan_size, dtype=dtype, **settings),
      'discriminator': models.ClassDiscriminator(dtype=dtype, **settings),
    }

  frozen = residual(1).frozen
  base = optimizer or optax.identity()
  adversarial = base if gan_optimizer is None else optim.adam(**{'steps': 1, **gan_optimizer})
  rules = {
    'residual': optim.partition.freeze(base, frozen),
    **dict.fromkeys(GAN, adversarial),
  }
  wide = jnp.promote_types(dtype, jnp.float32)

  def total(tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def pixels(image: jax.Array) -> jax.Array:
    """[N, H, W, 3] in 0..255 -> what the residual network takes."""
    exact = jnp.promote_types(image.dtype, jnp.float32)
    return ops.normalize_pixels(image, mean=mean, std=std, dtype=exact)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    image, count = spec.batch['image'], len(spec.classes)
    keys = jax.random.split(key, 3)
    made = models.initial_variables(keys[0], residual(count), image, pretrained=pretrained)
    networks = gan(count)
    blank = jnp.zeros((1, gan_size, gan_size, image.shape[3]), jnp.float32)
    noise, label = jnp.zeros((1, latent), jnp.float32), jnp.zeros((1,), jnp.int32)
    fresh = {
      'generator': networks['generator'].init(keys[1], noise, label, running=True),
      'discriminator': networks['discriminator'].init(keys[2], blank, running=True),
    }
    params, statistics = (
      {**made[kind], **{name: fresh[name].get(kind, {}) for name in GAN}}
      for kind in ('params', 'batch_stats')
    )
    model_state: dict[str, Any] = {'batch_stats': statistics}
    if angle_limits:
      limits = view_geometry.class_limits(angle_limits, spec.classes)
      model_state['angle_limits'] = jnp.asarray(limits)
    return State(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state={name: rules[name].init(part) for name, part in _networks(params).items()},
    )

  def step(key: jax.Array, state: State, batch: Batch) -> tuple[State, dict]:
    label, valid, index = batch['label'], batch['valid'], batch['index']
    params, statistics = _networks(state.params), _networks(state.model_state['batch_stats'])
    count = params['residual']['fc']['kernel'].shape[1]
    networks = gan(count)
    key_views, key_made = jax.random.split(jax.random.fold_in(key, state.step))

    view = batch['image'].astype(jnp.float32)
    if augmentation is not None:
      limits = state.model_state.get('angle_limits')
      view = augment.random_views(
        key_views, batch['image'], index, label=label, angle_limits=limits, **views
      )
    view = view.astype(wide)
    noise, wished = _draw(example_keys(key_made, index), latent, count)

    def run(name: str, own: Any, *inputs: jax.Array) -> tuple[jax.Array, Any]:
      """Applies a network of the GAN with the statistics of the batch."""
      variables = {'params': own, 'batch_stats': statistics[name]}
      outputs, updated = networks[name].apply(
        variables, *inputs, running=False, valid=valid, mutable=['batch_stats']
      )
      return outputs, updated['batch_stats']

    def summed(per_example: jax.Array, of: jax.Array = valid) -> jax.Array:
      return jnp.where(of, per_example, 0.0).sum()

    def generator_loss(own: Any) -> Any:
      image, updated = run('generator', own, noise, wished)
      named, _ = run('discriminator', params['discriminator'], image)
      return summed(_cross_entropy_with_made(named, wished)), (image, named, updated)

    slope = jax.value_and_grad(generator_loss, has_aux=True)
    (wish_loss, (made, named, generator_statistics)), wish_slope = slope(params['generator'])

    def residual_loss(own: Any) -> Any:
      own = optim.partition.stop_frozen(own, frozen)
      seen = jnp.concatenate([view, resized((made + 1) * 127.5, *view.shape[1:3])])
      outputs, updated = residual(count).apply(
        {'params': own, 'batch_stats': statistics['residual']},
        pixels(seen),  # [2N, H, W, C]: one pass, with the statistics of its first half
        train=True,
        valid=jnp.concatenate([valid, jnp.zeros_like(valid)]),
        mutable=['batch_stats'],
      )
      real, unlabelled = jnp.split(outputs.logits, 2)
      given, agreed = ops.agreed_labels(named, unlabelled, confidence=confidence)
      agreed &= valid & (state.step >= pseudo_from)
      loss = summed(losses.softmax_cross_entropy(real, label))
      loss += pseudo_weight * summed(losses.softmax_cross_entropy(unlabelled, given), agreed)
      return loss, (real, given, agreed, updated['batch_stats'])

    slope = jax.value_and_grad(residual_loss, has_aux=True)
    (loss, (real, given, agreed, residual_statistics)), residual_slope = slope(params['residual'])

    def discriminator_loss(own: Any) -> Any:
      real, _ = run('discriminator', own, resized(view, gan_size, gan_size) / 127.5 - 1)
      fake, updated = run('discriminator', own, made)
      loss = summed(_cross_entropy_with_made(real, label))
      loss += summed(_cross_entropy_with_made(fake, jnp.full_like(label, count)))
      loss += pseudo_weight * summed(losses.softmax_cross_entropy(fake, given), agreed)
      return loss, (real, updated)

    slope = jax.value_and_grad(discriminator_loss, has_aux=True)
    (told_apart, (judged, judge_statistics)), judge_slope = slope(params['discriminator'])

    gradient = {
      'residual': residual_slope,
      'generator': wish_slope,
      'discriminator': judge_slope,
    }
    weight = valid.sum().astype(loss.dtype)
    sums = {
      'loss': loss,
      'generator': wish_loss,
      'discriminator': told_apart,
      'accuracy': summed(real.argmax(-1) == label),
      'discriminator_accuracy': summed(judged.argmax(-1) == label),
      'pseudo_labels': summed(agreed),
      'pseudo_labels_as_wished': summed(agreed & (given == wished)),
    }
    gradient, sums, weight = total((gradient, sums, weight))
    # A batch of padding alone has no gradient.
    safe_weight = jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)
    gradient = jax.tree.map(lambda g: g / safe_weight.astype(g.dtype), gradient)

    moved, opt_state = {}, {}
    for name, part in params.items():
      updates, opt_state[name] = rules[name].update(gradient[name], state.opt_state[name], part)
      moved[name] = optax.apply_updates(part, updates)

    one = jnp.ones((), jnp.float32)
    scalars = {name: (value.astype(weight.dtype), weight) for name, value in sums.items()}
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    scalars['gradient_norm'] = (norm, one)
    found = optax.tree_utils.tree_get_all_with_path(opt_state['residual'], 'learning_rate')
    for _, rate in found[:1]:
      scalars['learning_rate'] = (rate, one)
    new_statistics = {
      'residual': residual_statistics,
      'generator': generator_statistics,
      'discriminator': judge_statistics,
    }
    model_state = {**state.model_state, 'batch_stats': _flat(new_statistics)}
    return State(state.step + 1, _flat(moved), model_state, opt_state), scalars

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Drops the GAN, which does not predict; nothing is learned from the references."""
    del key
    refuse_new_classes(
      fitted, references, method='multi_training_gan', instead='contrastive_margin can'
    )
    statistics = _networks(fitted.model_state['batch_stats'])['residual']
    return dataclasses.replace(
      fitted,
      params=_networks(fitted.params)['residual'],
      model_state={**fitted.model_state, 'batch_stats': statistics},
    )

  def variables_of(fitted: Fitted) -> dict[str, Any]:
    kinds = {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']}
    return {kind: _networks(tree)['residual'] for kind, tree in kinds.items()}

  def forward(fitted: Fitted, batch: Batch, tap: jax.Array | None = None) -> Any:
    chex.assert_rank(batch['image'], 4)
    network = residual(fitted.params['fc']['kernel'].shape[1])
    return network.apply(variables_of(fitted), pixels(batch['image']), train=False, tap=tap)

  def class_scores(logits: jax.Array) -> ClassScores:
    return ClassScores(scores=logits, probabilities=jax.nn.softmax(logits))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return class_scores(forward(fitted, batch).logits)

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    outputs = forward(fitted, batch, tap)
    return class_scores(outputs.logits), outputs.feature_map

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      'backbone': backbone,
      'stages': stages,
      'width': width,
      'num_classes': len(fitted.classes),
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    return 'classifier', arguments, variables_of(fitted)  # what predicts is nothing else

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)


def resized(image: jax.Array, height: int, width: int) -> jax.Array:
  """[N, h, w, C] -> [N, H, W, C], bilinear, and smoothed first where it gets smaller."""
  return jax.image.resize(image, (image.shape[0], height, width, image.shape[3]), 'linear')


def _networks(tree: Any) -> dict[str, Any]:
  """Takes ``backbone`` and ``fc`` together, as the network that they are."""
  own = {name: part for name, part in tree.items() if name not in GAN}
  return {'residual': own, **{name: tree[name] for name in GAN if name in tree}}


def _flat(networks: dict[str, Any]) -> dict[str, Any]:
  """The way back from ``_networks``: the residual network lies where those of others do."""
  return {**networks['residual'], **{name: networks[name] for name in GAN}}


def _draw(keys: jax.Array, latent: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
  """[N] keys -> noise [N, Z] and the class that each picture shall show [N]."""

  def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    key_noise, key_class = jax.random.split(key)
    noise = jax.random.normal(key_noise, (latent,), jnp.float32)
    return noise, jax.random.randint(key_class, (), 0, num_classes, jnp.int32)

  return jax.vmap(one)(keys)


def _cross_entropy_with_made(scores: jax.Array, label: jax.Array) -> jax.Array:
  """Cross-entropy [N] over K + 1 classes, the last of which, 'made', has the score 0."""
  return losses.softmax_cross_entropy(jnp.pad(scores, ((0, 0), (0, 1))), label)
