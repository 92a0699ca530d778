r"""Uninformed Students: networks that know a teacher's answers for good parts alone
(Bergmann et al. 2020).

A teacher describes every patch of p x p pixels; students of the same shape learn its descriptors on
good parts. Where an image shows something else, the students miss the teacher and disagree with
each other. With the teacher's descriptors y, standardised by their mean and deviation over the good
parts, and the students' :math:`s_1 \ldots s_M`, at every place

.. math:: e = \| \bar s - y \|^2, \qquad v = \tfrac1M \sum_i \| s_i \|^2 - \| \bar s \|^2, \qquad
          a = \frac{e - \mu_e}{\sigma_e} + \frac{v - \mu_v}{\sigma_v}

(equations 7 to 10), the moments taken over good parts, and a averaged over the fields. The map is
a, enlarged to the image's size; the score of an image is the map's largest value.

What differs from the paper:

- **The teacher is distilled from the pretrained backbone on the good parts at hand**, not on
  ImageNet, which is not needed here: it imitates, through a linear decoder, the backbone's pooled
  features of enlarged patches (equation 1). It happens once, in ``prepare``, before step 0.
- The compactness loss (equation 4) is the mean square of the correlations between the entries of a
  descriptor; the plain sum of the paper could cancel. There is no metric learning (equation 3).
- Training takes a window of the image at a random place instead of the whole image, and maps have
  one place per ``stride`` pixels: both for time. Border pixels are mirrored beyond the image.

Shape legend: N images, H x W pixels, h x w places, D descriptor size, p field, M students.
"""

import dataclasses
import functools
import itertools
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import losses, models, optim
from jaxdefect.contracts import (
  AnomalyMaps,
  Batch,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
  example_keys,
)
from jaxdefect.data.good_parts import good_parts
from jaxdefect.models.patch_descriptor import PatchDescriptor, pad_to_cells
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels, smooth_map
from jaxdefect.ops.moments import Moments, deviation, merged, moments_of


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = 3,
  width: int = 64,
  fields: tuple[int, ...] = (33,),
  students: int = 3,
  features: int = 128,
  channels: int = 128,
  stride: int = 4,
  window: int | None = 8,
  teacher_steps: int = 300,
  teacher_rate: float = 1e-3,
  teacher_crops: int = 4,
  teacher_size: int = 64,
  compactness: float = 1.0,
  expectation: Literal['validation', 'training'] = 'validation',
  sigma: float = 0.0,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes Uninformed Students.

  Args:
    optimizer: of the students; None where nothing will be trained.
    backbone: a name of ``models.backbone``, whose last map the teacher imitates.
    stages: the backbone ends after this stage; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    fields: p in pixels, of 17, 33 and 65; each has a teacher and students of its own (paper: all
      three in images of 256).
    students: M per field.
    features: D.
    channels: of a descriptor's first layer; 128 is the published network.
    stride: pixels between places of a map, 1 (paper), 2, 4 ...; both training and maps.
    window: side in places of what a step sees of each image; None for the whole image.
    teacher_steps: optimiser steps of the distillation.
    teacher_rate: learning rate of its Adam, falling to zero along a cosine.
    teacher_crops: patches drawn from each image in a step of it, per field.
    teacher_size: pixels to which a patch is enlarged for the backbone.
    compactness: weight of the decorrelation of the descriptor.
    expectation: where ``adapt`` measures what good parts look like: ``'validation'`` on
      ``references.validation`` where it is there (paper), ``'training'`` never there. Where the
      same validation part sets a threshold, only ``'training'`` keeps its guarantee exact.
    sigma: of the Gaussian that smooths the map, pixels; 0 (paper) only enlarges it.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the networks; parameters and losses stay float32.
    accumulate: parts in which a device goes through its batch, see ``optim.gradient_step``.
    axis_name: the device axis, for the gradient.

  Returns:
    The ``Method``. ``prepare`` distils the teacher and needs references; a step trains the
    students; ``adapt`` measures moments of error and variance, and adds to those that are there.

  Raises:
    ValueError: fields, students, stride, window or expectation outside what is allowed.
  """
  for name, value in (('students', students), ('stride', stride), ('teacher_steps', teacher_steps)):
    if value < 1:
      raise ValueError(f'{name} must be 1 or more, got {value}.')
  if window is not None and window < 1:
    raise ValueError(f'window must be 1 or more places, or None for the whole image, got {window}.')
  if not fields or len(set(fields)) < len(fields):
    raise ValueError(f'fields must be different sides of patches, at least one, got {fields}.')
  if stride > min(fields):
    raise ValueError(f'stride is {stride}; patches of {min(fields)} pixels would leave gaps.')
  if expectation not in ('validation', 'training'):
    raise ValueError(f"expectation must be 'validation' or 'training', got {expectation!r}.")
  networks = {
    f'field_{p}': PatchDescriptor(p, features, channels, dtype=dtype) for p in sorted(fields)
  }
  trunk = models.backbone(
    backbone, stages=stages, width=width, update_statistics=False, dtype=dtype
  )

  def frozen(path: optim.partition.Path) -> bool:
    return path[0] != 'students'

  rule = optim.partition.freeze(optimizer or optax.identity(), frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std, dtype=dtype)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    key_trunk, key_teacher, *key_students = jax.random.split(key, 2 + students)
    depth = spec.batch['image'].shape[-1]
    seen = trunk.init(key_trunk, jnp.zeros((1, teacher_size, teacher_size, depth), jnp.float32))

    def descriptors(key: jax.Array) -> dict[str, Any]:
      return {
        name: net.init(k, jnp.zeros((1, net.field, net.field, depth), jnp.float32))['params']
        for (name, net), k in zip(networks.items(), jax.random.split(key, len(networks)))
      }

    variables = {
      'params': {
        'backbone': seen['params'],
        'teacher': descriptors(key_teacher),
        'students': {f'student_{i}': descriptors(k) for i, k in enumerate(key_students)},
      },
      'batch_stats': {'backbone': seen['batch_stats']},
    }
    if pretrained is not None:
      variables = models.merge_pretrained(variables, pretrained)
    plain = {name: jnp.zeros((features,), jnp.float32) for name in networks}
    model_state = {
      'batch_stats': variables['batch_stats'],
      'descriptor_mean': plain,
      'descriptor_sd': jax.tree.map(jnp.ones_like, plain),
    }
    return optim.initial_state(variables['params'], model_state, rule)

  # Before step 0: the teacher.

  def imitation(trained: Any, fixed: Any, key: jax.Array, batch: Batch) -> jax.Array:
    """Equation 1 and the compactness, summed over the fields."""
    total = jnp.zeros(())
    for name, net in networks.items():
      keys = jax.vmap(lambda k: jax.random.split(k, teacher_crops))(
        example_keys(jax.random.fold_in(key, net.field), batch['index'])
      )
      padded = pad_to_cells(pixels(batch['image']), field=net.field, stride=stride)
      cut = functools.partial(random_window, size=net.field)
      patches = jax.vmap(jax.vmap(cut, (0, None)))(keys, padded)
      patches = patches.reshape(-1, *patches.shape[2:])  # [N T, p, p, 3]
      enlarged = (len(patches), teacher_size, teacher_size, patches.shape[-1])
      seen: Any = trunk.apply(fixed, jax.image.resize(patches, enlarged, 'bilinear'))
      target = models.global_average_pool(jax.lax.stop_gradient(seen[-1]))  # [N T, F]
      described: Any = net.apply({'params': trained['teacher'][name]}, patches, stride=stride)
      described = described[:, 0, 0].astype(target.dtype)  # [N T, D]
      decoder = trained['decoder'][name]
      away = described @ decoder['kernel'] + decoder['bias'] - target
      valid = jnp.repeat(batch['valid'], teacher_crops)
      away = jnp.where(valid, jnp.square(away).mean(-1), 0.0).sum() / jnp.maximum(valid.sum(), 1)
      total = total + away + compactness * losses.mean_square_correlation(described, valid=valid)
    return total

  def prepare(key: jax.Array, state: State, references: References | None) -> State:
    """Distils the teacher on the good parts, and standardises its descriptors over them."""
    if references is None:
      raise ValueError('uninformed_students distils its teacher on good parts; prepare needs them.')
    params, model_state = state.params, dict(state.model_state)
    fixed = {'params': params['backbone'], 'batch_stats': model_state['batch_stats']['backbone']}
    key_decoder, key_crops = jax.random.split(key)
    kernel = jax.random.normal(key_decoder, (features, trunk.stage_features[-1]), jnp.float32)
    decoder = {'kernel': kernel / features**0.5, 'bias': jnp.zeros(kernel.shape[1:], jnp.float32)}
    trained = {'teacher': params['teacher'], 'decoder': dict.fromkeys(networks, decoder)}
    adam = optim.adam(learning_rate=teacher_rate, steps=teacher_steps, schedule='cosine')

    @jax.jit
    def follow(trained, moments, step, batch):
      slope = jax.grad(imitation)(trained, fixed, jax.random.fold_in(key_crops, step), batch)
      updates, moments = adam.update(slope, moments, trained)
      return optax.apply_updates(trained, updates), moments

    moments = adam.init(trained)
    passes = itertools.chain.from_iterable(good_parts(references) for _ in itertools.count())
    for step, batch in enumerate(itertools.islice(passes, teacher_steps)):
      trained, moments = follow(trained, moments, step, _seen(batch))
    teacher = jax.tree.map(
      lambda new, old: new.astype(old.dtype), trained['teacher'], params['teacher']
    )

    @jax.jit
    def described(image, valid):
      answers = describe(teacher, pixels(image))
      return {name: moments_of(answer, valid) for name, answer in answers.items()}

    known: dict[str, Any] = dict.fromkeys(networks)
    for batch in good_parts(references):
      for name, found in described(batch['image'], batch['valid']).items():
        known[name] = merged(known[name], found)
    for name, found in known.items():
      for key_name, value in (('mean', found.mean), ('sd', deviation(found))):
        old = model_state[f'descriptor_{key_name}']
        value = jnp.asarray(value, old[name].dtype)
        model_state[f'descriptor_{key_name}'] = {**old, name: value}
    return state._replace(params={**params, 'teacher': teacher}, model_state=model_state)

  # From step 0 on: the students.

  def describe(params: Any, image: jax.Array) -> dict[str, jax.Array]:
    """Descriptors of the cells of normalised images, per field [N, h, w, D]."""
    return {
      name: net.apply(
        {'params': params[name]}, pad_to_cells(image, field=net.field, stride=stride), stride=stride
      )
      for name, net in networks.items()
    }  # pyright: ignore

  def standardise(model_state: Any, name: str, answer: jax.Array) -> jax.Array:
    answer = answer.astype(jnp.promote_types(answer.dtype, jnp.float32))
    shift, scale = model_state['descriptor_mean'][name], model_state['descriptor_sd'][name]
    return (answer - shift) / scale

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, valid = pixels(batch['image']), batch['valid']
    total = jnp.zeros(image.shape[0])  # [N]
    for name, net in networks.items():
      padded = pad_to_cells(image, field=net.field, stride=stride)
      if window is not None:
        side = min((window - 1) * stride + net.field, *padded.shape[1:3])
        keys = example_keys(jax.random.fold_in(key, net.field), batch['index'])
        padded = jax.vmap(functools.partial(random_window, size=side))(keys, padded)
      answer = net.apply({'params': params['teacher'][name]}, padded, stride=stride)
      wanted = jax.lax.stop_gradient(standardise(model_state, name, jnp.asarray(answer)))
      for student in params['students'].values():
        said: Any = net.apply({'params': student[name]}, padded, stride=stride)
        total += jnp.square(said.astype(wanted.dtype) - wanted).sum(-1).mean((1, 2))
    total = jnp.where(valid, total / (students * len(networks)), 0.0).sum()
    weight = valid.sum().astype(jnp.float32)
    # 1 where the students know no more than the mean descriptor.
    return total, (weight, model_state, {'unexplained': (total / features, weight)})

  step = optim.gradient_step(loss, rule, axis_name=axis_name, frozen=frozen, accumulate=accumulate)

  def deviations(fitted: Fitted, image: jax.Array) -> jax.Array:
    """Error and variance (equations 7 and 8) per field and place: [L, N, h, w, 2]."""
    chex.assert_rank(image, 4)
    image = pixels(image)
    answers = describe(fitted.params['teacher'], image)
    said = [describe(one, image) for one in fitted.params['students'].values()]
    found = []
    for name, answer in answers.items():
      wanted = standardise(fitted.model_state, name, answer)
      guesses = jnp.stack([one[name].astype(wanted.dtype) for one in said])  # [M, N, h, w, D]
      found.append(jnp.stack(error_and_variance(guesses, wanted), axis=-1))
    return jnp.stack(found)

  @jax.jit
  def moments_batch(fitted: Fitted, image: jax.Array, valid: jax.Array) -> list[Moments]:
    return [moments_of(one, valid) for one in deviations(fitted, image)]

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Measures error and variance on good parts, after those that were measured before."""
    del key  # nothing is drawn
    if expectation == 'validation' and references.validation is not None:
      references = References(references.classes, references.validation)
    bare = dataclasses.replace(fitted, memory=None, calibration=None)
    known: list[Any] = [None] * len(networks)
    if fitted.memory is not None:
      memory = jax.tree.map(np.asarray, fitted.memory)
      rows = zip(memory['count'], memory['mean'], memory['squares'])
      known = [Moments(*row) for row in rows]
    for batch in good_parts(references):
      found = moments_batch(bare, batch['image'], batch['valid'])
      known = [merged(old, new) for old, new in zip(known, found)]
    memory = {
      'count': jnp.asarray([one.count for one in known], jnp.int32),  # [L]
      'mean': jnp.asarray(np.stack([one.mean for one in known]), jnp.float32),  # [L, 2]
      'squares': jnp.asarray(np.stack([one.squares for one in known]), jnp.float32),
    }
    return dataclasses.replace(fitted, memory=memory)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('uninformed_students has seen no good parts yet: call adapt before predict')
    usual = Moments(**{name: fitted.memory[name] for name in Moments._fields})
    centre, scale = (x[:, None, None, None] for x in (usual.mean, deviation(usual)))
    found = deviations(fitted, batch['image'])
    cells = ((found - centre) / scale).sum(-1).mean(0)  # [N, h, w]
    maps = smooth_map(cells, size=batch['image'].shape[1:3], sigma=sigma)
    return AnomalyMaps(scores=maps.max((1, 2)), maps=maps)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError(
        'uninformed_students has seen no good parts yet: call adapt before it is converted'
      )
    usual = Moments(**{name: fitted.memory[name] for name in Moments._fields})
    arguments = {
      **{'fields': sorted(fields), 'students': students, 'features': features},
      **{'channels': channels, 'stride': stride, 'sigma': sigma},
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    memory = {'usual': usual.mean, 'spread': deviation(usual)}  # [L, 2]
    for name in ('descriptor_mean', 'descriptor_sd'):  # [L, D]
      memory[name] = np.stack([np.asarray(fitted.model_state[name][net]) for net in networks])
    params = {name: fitted.params[name] for name in ('teacher', 'students')}
    return 'uninformed_students', arguments, {'params': params, 'memory': memory}

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def random_window(key: jax.Array, image: jax.Array, *, size: int) -> jax.Array:
  """[H, W, C] -> [size, size, C], cut at a place drawn uniformly."""
  room = [side - size + 1 for side in image.shape[:2]]
  corner = jax.random.randint(key, (2,), 0, jnp.asarray(room), jnp.int32)
  start = (corner[0], corner[1], jnp.zeros((), jnp.int32))
  return jax.lax.dynamic_slice(image, start, (size, size, image.shape[2]))


def error_and_variance(guesses: jax.Array, answer: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Equations 7 and 8.

  Args:
    guesses: [M, ..., D] of the students.
    answer: [..., D] of the teacher, standardised.

  Returns:
    Two arrays [...]: squared distance of the students' mean from the teacher, and the students'
    mean squared distance from their mean.

  >>> error, variance = error_and_variance(jnp.array([[1.0, 0], [3, 0]]), jnp.array([2.0, 2]))
  >>> float(error), float(variance)
  (4.0, 1.0)
  """
  chex.assert_equal_shape([guesses[0], answer])
  middle = guesses.mean(0)
  return jnp.square(middle - answer).sum(-1), jnp.square(guesses - middle).sum(-1).mean(0)


def _seen(batch: Batch) -> Batch:
  """What the distillation reads of a batch."""
  return {name: batch[name] for name in ('image', 'valid', 'index')}
