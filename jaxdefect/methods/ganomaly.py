"""GANomaly (Akcay et al. 2018): what cannot be encoded again after reconstruction is anomalous.

A generator encodes an image x to z, decodes that to x', and a second encoder encodes x' to z'. A
discriminator tells x from x', f are its last features. The generator descends

  L_G = w_adv mean (f(x) - f(x'))^2 + w_con mean |x - x'| + w_enc mean (z - z')^2

(equations 1 to 4, with the weights 1, 50, 1), the discriminator the cross-entropy

  L_D = 1/2 (-log D(x) - log(1 - D(x')))

- A step is the authors': one forward pass; both gradients are taken at the parameters before the
  step, then both networks move. x' is a constant to L_D, and the discriminator's parameters are
  constants to L_G. One optimiser rule drives both, each with a state of its own.
- The score of an image is mean (z - z')^2 (equation 5: the paper writes the L1 norm, the authors'
  code takes this mean square), raw: the authors bring the scores of the test set to 0..1 by its
  own extremes. Prediction uses the running statistics.
- The map, which the paper does not have, is the smoothed |x - x'|, mean over channels, in pixel
  values normalised to -1..1. It is not what the score is made from.
- Left out: the authors' restart of the discriminator when its loss falls below 1e-5, and their
  random start of BatchNorm's scales (N(1, 0.02)), which start at 1.

Shape legend: N images, S x S pixels, C channels, Z latent size.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxdefect import models, optim
from jaxdefect.contracts import (
  AnomalyMaps,
  Batch,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
)
from jaxdefect.data.good_parts import good_parts
from jaxdefect.ops import normalize_pixels, smooth_map

HALF = (0.5, 0.5, 0.5)


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  latent: int = 100,
  width: int = 64,
  adversarial_weight: float = 1.0,
  reconstruction_weight: float = 50.0,
  latent_weight: float = 1.0,
  sigma: float = 4.0,
  mean: tuple[float, ...] = HALF,
  std: tuple[float, ...] = HALF,
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes GANomaly.

  Args:
    optimizer: optax transformation for both networks (paper: Adam, 2e-4, b1 0.5); None where
      nothing will be trained.
    latent: Z.
    width: channels of the first layers.
    adversarial_weight: w_adv.
    reconstruction_weight: w_con.
    latent_weight: w_enc.
    sigma: of the map's smoothing, pixels.
    mean: per channel, in 0..1, subtracted from the pixels. With the default pixels lie in -1..1,
      as what the decoder's tanh gives.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the networks; parameters and losses stay float32.
    accumulate: 1, as BatchNorm sees the whole batch.
    axis_name: the device axis, for BatchNorm and the gradients.

  Returns:
    The ``Method``, for square images whose side is a power of two from 8 on. ``adapt`` keeps
    nothing: all that is known of good parts is in the parameters.
  """
  optim.accumulation.check(
    accumulate, 'the BatchNorm of both networks takes its statistics from the whole batch'
  )
  rule = optimizer or optax.identity()
  settings: Any = {'width': width, 'axis_name': axis_name, 'dtype': dtype}
  generator = models.Generator(latent, **settings)
  discriminator = models.Discriminator(**settings)

  def total(tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def run(network: Any, params: Any, statistics: Any, x: jax.Array, valid: jax.Array) -> Any:
    """Applies a network with the statistics of the batch -> (outputs, new statistics)."""
    variables = {'params': params, 'batch_stats': statistics}
    outputs, updated = network.apply(
      variables, x, running=False, valid=valid, mutable=['batch_stats']
    )
    return outputs, updated['batch_stats']

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    blank = jnp.zeros((1, *spec.batch['image'].shape[1:]), jnp.float32)
    keys = jax.random.split(key)
    made = {
      'generator': generator.init(keys[0], blank, running=True),
      'discriminator': discriminator.init(keys[1], blank, running=True),
    }
    variables: Any = {
      collection: {name: made[name].get(collection, {}) for name in made}
      for collection in ('params', 'batch_stats')
    }
    if pretrained is not None:
      variables = models.merge_pretrained(variables, pretrained)
    return State(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      model_state={'batch_stats': variables['batch_stats']},
      opt_state={name: rule.init(variables['params'][name]) for name in made},
    )

  def judge(params: Any, statistics: Any, x: jax.Array, made: jax.Array, valid: jax.Array) -> Any:
    """The discriminator on the real and then on the made images, each with its own statistics."""
    real, statistics = run(discriminator, params, statistics, x, valid)
    fake, statistics = run(discriminator, params, statistics, made, valid)
    return real, fake, statistics

  def step(key: jax.Array, state: State, batch: Batch) -> tuple[State, dict]:
    del key  # nothing is drawn
    x, valid = pixels(batch['image']), batch['valid']
    params, statistics = state.params, state.model_state['batch_stats']

    def summed(per_example: jax.Array) -> jax.Array:
      return jnp.where(valid, per_example, 0.0).sum()

    def generator_loss(own: Any) -> Any:
      outputs, updated = run(generator, own, statistics['generator'], x, valid)
      real, fake, _ = judge(
        params['discriminator'], statistics['discriminator'], x, outputs.image, valid
      )
      parts = {
        'adversarial': summed(mean_square(real.features - fake.features)),
        'reconstruction': summed(jnp.abs(x - outputs.image).mean((1, 2, 3))),
        'latent': summed(mean_square(outputs.latent - outputs.latent_again)),
      }
      loss = (
        adversarial_weight * parts['adversarial']
        + reconstruction_weight * parts['reconstruction']
        + latent_weight * parts['latent']
      )
      return loss, (outputs.image, updated, parts)

    # XLA sees that this pass is the one above, and computes it once.
    def discriminator_loss(own: Any, made: jax.Array) -> Any:
      real, fake, updated = judge(own, statistics['discriminator'], x, made, valid)
      loss = 0.5 * (jax.nn.softplus(-real.logit) + jax.nn.softplus(fake.logit))
      return summed(loss), updated

    slope = jax.value_and_grad(generator_loss, has_aux=True)
    (loss, (made, generator_statistics, parts)), descent = slope(params['generator'])
    slope = jax.value_and_grad(discriminator_loss, has_aux=True)
    (told_apart, discriminator_statistics), ascent = slope(params['discriminator'], made)

    weight = valid.sum().astype(loss.dtype)
    sums = {**parts, 'loss': loss, 'discriminator': told_apart}
    gradient = {'generator': descent, 'discriminator': ascent}
    gradient, sums, weight = total((gradient, sums, weight))
    # A batch of padding alone has no gradient.
    safe_weight = jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)
    gradient = jax.tree.map(lambda g: g / safe_weight.astype(g.dtype), gradient)

    new_params, opt_state = {}, {}
    for name in gradient:
      updates, opt_state[name] = rule.update(gradient[name], state.opt_state[name], params[name])
      new_params[name] = optax.apply_updates(params[name], updates)

    one = jnp.ones((), jnp.float32)
    scalars = {name: (value, weight) for name, value in sums.items()}
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    scalars['gradient_norm'] = (norm, one)
    for _, rate in optax.tree_utils.tree_get_all_with_path(opt_state, 'learning_rate')[:1]:
      scalars['learning_rate'] = (rate, one)
    statistics = {'generator': generator_statistics, 'discriminator': discriminator_statistics}
    model_state = {**state.model_state, 'batch_stats': statistics}
    return State(state.step + 1, new_params, model_state, opt_state), scalars

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Only makes sure that the references are good parts; nothing is kept of them."""
    del key
    for _ in good_parts(references):
      pass
    return fitted

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    chex.assert_rank(batch['image'], 4)
    x = pixels(batch['image'])
    statistics = fitted.model_state['batch_stats']['generator']
    variables = {'params': fitted.params['generator'], 'batch_stats': statistics}
    outputs: Any = generator.apply(variables, x, running=True)
    error = jnp.abs(x - outputs.image).mean(-1)  # [N, S, S]
    return AnomalyMaps(
      scores=mean_square(outputs.latent - outputs.latent_again),
      maps=smooth_map(error, size=(x.shape[1], x.shape[2]), sigma=sigma),
    )

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    params = fitted.params['generator']
    arguments = {
      **{'latent': latent, 'width': width, 'sigma': sigma},
      'halvings': sum(name.startswith('up.') for name in params['decoder']),
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    statistics = fitted.model_state['batch_stats']['generator']
    return 'ganomaly', arguments, {'params': params, 'batch_stats': statistics}

  return Method(init, optim.no_preparation, step, adapt, predict, deploy=deploy)


def mean_square(difference: jax.Array) -> jax.Array:
  """[N, ...] -> [N], the mean over all but the first axis."""
  return jnp.square(difference).reshape(difference.shape[0], -1).mean(-1)
