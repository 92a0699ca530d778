"""Self-contrastive + angular-margin recogniser (Phuong et al. 2024).

Each image gives three embeddings: itself and two random views. The contrastive loss (equation 2)
pulls the three together against every other image of the batch; ArcFace (equation 4) pulls them
towards their class. ``L = alpha L_con + beta L_arc`` (equation 5, alpha = 0.75, beta = 0.25).
Recognition compares an image with a database of reference images: the class with the highest mean
cosine similarity wins. A class never seen in training is one ``adapt`` away.

What the paper leaves open, and what is done here:

- ArcFace's scale s: 30. ``margin_views`` says whether ArcFace sees the image alone ('original') or
  the three embeddings ('all', the default: it is three times the labelled data).
- Anchors of a pair: equation 2 writes N (``anchors='first'``); the usual NT-Xent has 2N
  (``anchors='both'``, the default).
- Whether recognition uses the projection or the features before it: ``embedding``.

Shape legend: N images, D embedding size, M references, K classes.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import chex
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
from jaxdefect.data import augment, view_geometry
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet50',
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 0,
  update_statistics: bool = True,
  backbone_rate: float = 1.0,
  projection: tuple[int, ...] = (512, 128),
  contrastive_weight: float = 0.75,
  margin_weight: float = 0.25,
  temperature: float = 0.5,
  anchors: Literal['both', 'first'] = 'both',
  positives: Literal['views', 'class'] = 'views',
  margin: float = 0.5,
  scale: float = 30.0,
  margin_views: Literal['original', 'all'] = 'all',
  embedding: Literal['projection', 'features'] = 'projection',
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the self-contrastive + angular-margin recogniser.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    backbone: a name of ``models.backbone``.
    stages: the network ends after this stage; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    frozen_stages: the stem and this many stages keep their parameters and statistics.
    update_statistics: False keeps BatchNorm's running statistics (needed by folded weights).
    backbone_rate: factor on the learning rate of the backbone.
    projection: widths of the projection MLP; the last is the embedding size (paper: 128).
    contrastive_weight: alpha of equation 5.
    margin_weight: beta of equation 5.
    temperature: tau of equation 1.
    anchors: which embeddings of a pair are anchors, see ``losses.nt_xent``; of ``positives``
      'views' alone.
    positives: what attracts an embedding: the other views of its picture (equation 2), or those of
      all pictures of its class (``losses.supervised_contrastive``, the paper's future work).
    margin: m of equation 4, radians.
    scale: s of equation 4.
    margin_views: whether ArcFace sees the image alone or its views too.
    embedding: what recognition compares.
    augmentation: arguments of ``data.augment.random_views``. Its ``angle_limits`` are given by name
      here: degrees for each class that has a direction.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, pooling and losses stay float32.
    remat: as of ``models.backbone``: less memory for the gradient, more time.
    accumulate: 1, as the pictures of a batch are compared with each other.
    axis_name: the device axis, for BatchNorm, the negatives and the gradient.

  Returns:
    The ``Method``. ``predict`` gives mean cosine similarities in -1..1, and as probabilities the
    softmax of ``scale`` times those.
  """
  chex.assert_scalar_positive(temperature)
  for argument, value, allowed in (
    ('anchors', anchors, ('both', 'first')),
    ('positives', positives, ('views', 'class')),
    ('margin_views', margin_views, ('original', 'all')),
    ('embedding', embedding, ('projection', 'features')),
  ):
    if value not in allowed:
      raise ValueError(f'{argument} is {value!r}; it can be {", ".join(allowed)}')
  views = dict(augmentation or {})
  angle_limits = views.pop('angle_limits', None)
  network = models.Recogniser(
    backbone=models.backbone(
      backbone,
      stages=stages,
      width=width,
      frozen_stages=frozen_stages,
      update_statistics=update_statistics,
      dtype=dtype,
      axis_name=axis_name,
      remat=remat,
    ),
    projection=tuple(projection),
    dtype=dtype,
  )

  rule = optim.partition.scale_by_group(
    optimizer or optax.identity(),
    lambda path: backbone_rate if path[0] == 'backbone' else 1.0,
  )
  rule = optim.partition.freeze(rule, network.frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    key_network, key_classes = jax.random.split(key)
    image = spec.batch['image']
    variables = models.initial_variables(key_network, network, image, pretrained=pretrained)
    shape = (projection[-1], len(spec.classes))
    params = {**variables['params'], 'class_weights': jax.random.normal(key_classes, shape)}
    model_state = {'batch_stats': variables['batch_stats']}
    if angle_limits:
      limits = view_geometry.class_limits(angle_limits, spec.classes)
      model_state['angle_limits'] = jnp.asarray(limits)
    return optim.initial_state(params, model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, label, valid = batch['image'], batch['label'], batch['valid']
    n = image.shape[0]
    x = image.astype(jnp.float32)
    limits = model_state.get('angle_limits')
    x_i, x_j = (
      augment.random_views(one, image, batch['index'], label=label, angle_limits=limits, **views)
      for one in jax.random.split(key)
    )
    outputs, updated = network.apply(
      {'params': _network_params(params), 'batch_stats': model_state['batch_stats']},
      pixels(jnp.concatenate([x, x_i, x_j])),  # [3N, H, W, C]: one pass, one set of statistics
      train=True,
      valid=jnp.tile(valid, 3),
      mutable=['batch_stats'],
    )
    z, z_i, z_j = jnp.split(outputs.projection, 3)

    shared: Any = {'temperature': temperature, 'valid': valid, 'axis_name': axis_name}
    if positives == 'class':
      contrastive = losses.supervised_contrastive((z, z_i, z_j), label, **shared)
    else:
      contrastive = losses.three_view_nt_xent(z, z_i, z_j, anchors=anchors, **shared)
    seen = outputs.projection if margin_views == 'all' else z
    angular = losses.arcface(
      seen,
      params['class_weights'],
      jnp.tile(label, seen.shape[0] // n),
      margin=margin,
      scale=scale,
    )
    angular = angular.reshape(-1, n).mean(0)  # [N]: the mean over an image's embeddings

    weight = valid.sum().astype(jnp.float32)
    total = contrastive_weight * contrastive + margin_weight * angular
    nearest = losses.cosine_logits(z, params['class_weights']).argmax(-1)
    scalars = {
      'contrastive': (jnp.where(valid, contrastive, 0.0).sum(), weight),
      'margin': (jnp.where(valid, angular, 0.0).sum(), weight),
      'accuracy': (((nearest == label) & valid).sum().astype(jnp.float32), weight),
    }
    return jnp.where(valid, total, 0.0).sum(), (weight, {**model_state, **updated}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    average_decay=average_decay,
    frozen=network.frozen,
    accumulate=accumulate,
    coupled='contrastive_margin compares the pictures of a batch with each other (NT-Xent)',
  )

  def embed(fitted: Fitted, batch: Batch, tap: jax.Array | None = None):
    """Unit embeddings [N, D] and the last feature maps [N, h, w, C]."""
    chex.assert_rank(batch['image'], 4)
    outputs: Any = network.apply(
      {
        'params': _network_params(fitted.params),
        'batch_stats': fitted.model_state['batch_stats'],
      },
      pixels(batch['image']),
      train=False,
      tap=tap,
    )
    vectors = outputs.projection if embedding == 'projection' else outputs.features
    return losses.unit_vectors(vectors), outputs.feature_map

  embed_batch = jax.jit(lambda fitted, batch: embed(fitted, batch)[0])

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Extends the reference database; unknown classes are appended to ``fitted.classes``."""
    del key  # the references decide everything
    classes = fitted.classes + tuple(c for c in references.classes if c not in fitted.classes)
    place = np.array([classes.index(c) for c in references.classes])
    vectors, labels, index = _gather(embed_batch, fitted, references.batches)
    memory = {'embeddings': vectors, 'labels': place[labels].astype(np.int32), 'index': index}
    if fitted.memory is not None:
      memory = {k: np.concatenate([np.asarray(fitted.memory[k]), v]) for k, v in memory.items()}
    missing = [c for i, c in enumerate(classes) if not (memory['labels'] == i).any()]
    if missing:
      raise ValueError(f'the references hold no image of the class {missing[0]!r}')
    return dataclasses.replace(fitted, memory=jax.tree.map(jnp.asarray, memory), classes=classes)

  def class_scores(fitted: Fitted, vectors: jax.Array) -> ClassScores:
    if fitted.memory is None:
      raise ValueError('the recogniser has no references yet: call adapt before predict')
    member = jax.nn.one_hot(fitted.memory['labels'], len(fitted.classes))  # [M, K]
    similarity = vectors @ fitted.memory['embeddings'].T  # [N, M]
    scores = similarity @ member / jnp.maximum(member.sum(0), 1.0)
    return ClassScores(scores=scores, probabilities=jax.nn.softmax(scale * scores))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return class_scores(fitted, embed(fitted, batch)[0])

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    vectors, maps = embed(fitted, batch, tap)
    return class_scores(fitted, vectors), maps

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError(
        'contrastive_margin has no references yet: call adapt before it is converted'
      )
    arguments = {
      'backbone': backbone,
      'stages': stages,
      'width': width,
      'projection': list(projection),
      'embedding': embedding,
      'scale': scale,
      'num_classes': len(fitted.classes),
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    arrays = {
      'params': _network_params(fitted.params),
      'batch_stats': fitted.model_state['batch_stats'],
      'memory': {
        'references': np.asarray(fitted.memory['embeddings']),
        'reference_labels': np.asarray(fitted.memory['labels'], np.int64),
      },
    }
    return 'recogniser', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)


def _network_params(params: dict) -> dict:
  return {name: value for name, value in params.items() if name != 'class_weights'}


def _gather(embed_batch: Any, fitted: Fitted, batches: Iterable[Batch]):
  """Embeds a stream of padded batches; returns [M, D], [M], [M] without the padding."""
  vectors, labels, index = [], [], []
  for batch in batches:
    keep = np.asarray(batch['valid'])
    vectors.append(np.asarray(embed_batch(fitted, batch))[keep])
    labels.append(np.asarray(batch['label'])[keep])
    index.append(np.asarray(batch['index'])[keep])
  if not vectors:
    raise ValueError('the references hold no batch')
  return np.concatenate(vectors), np.concatenate(labels), np.concatenate(index)
