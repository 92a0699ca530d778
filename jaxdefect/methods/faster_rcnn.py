"""Faster R-CNN, plain or as Xia & Long make it for few samples (source A).

The plain detector is torchvision's (Ren et al. 2015; Lin et al. 2017): a pyramid, a region proposal
network, and a head that classifies pooled regions and refines their boxes. Source A changes three
things, each an argument of its own (Table 2; numbers of sections):

- ``deformable='v1' | 'v2'``: every 3x3 of the last three stages learns where to sample (2.1).
- ``neck='gs_fpn'``, ``box_head='gs'``: GSConv instead of dense convolutions (2.2).
- ``classifier='prototype'``: ``p(c|f) = softmax_c(cos(f, u_c) / tau)`` for class prototypes u_c
  (2.3), with ``w_c = N_max / N_c``.

What the paper leaves open, and what is done here:

- The background has no prototype in the text. ``background='linear'`` (the default) scores it with
  a linear layer: what is no defect has no one appearance that a mean could stand for, and a class
  added later still competes by its cosine. ``'prototype'`` gives it a mean (``prototypes[0]``).
- tau and alpha are not given: 0.1 and 0.99 (with 0.9 and two images per batch the prototypes of
  classes that a batch lacks fall behind).
- The paper's contrastive loss takes dot products, its probabilities cosines: cosines here.
- A class added without training has no box regressor: with prototypes one regression serves all.
  Nor was the embedding trained to hold it apart: the mean of its boxes, ``new_class='prototype'``,
  lies close to other classes and background; ``'discriminant'`` is a plane (see there).

Shape legend: N images, H x W pixels, M true boxes, A anchors, R sampled regions, K classes (0 is
the background in ``logits``, not in ``labels``), D detections, F embedding size.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import losses, models, ops, optim
from jaxdefect.contracts import (
  Batch,
  DataSpec,
  Detections,
  Fitted,
  Method,
  NewClassError,
  References,
  State,
  example_keys,
)
from jaxdefect.data import augment_boxes

_BOX_CODER = (10.0, 10.0, 5.0, 5.0)


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet50',
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 1,
  update_statistics: bool = False,
  frozen_norm: bool = True,
  backbone_rate: float = 1.0,
  deformable: Literal['v1', 'v2'] | None = None,
  deformable_from: int = 2,
  neck: Literal['fpn', 'gs_fpn'] = 'fpn',
  neck_channels: int = 256,
  first_stage: int = 1,
  extra_levels: int = 1,
  box_head: Literal['mlp', 'gs'] = 'mlp',
  head_width: int = 1024,
  norm: Literal['batch', 'group'] = 'batch',
  classifier: Literal['linear', 'prototype'] = 'linear',
  embedding: int = 256,
  temperature: float = 0.1,
  prototype_momentum: float = 0.99,
  background: Literal['linear', 'prototype'] = 'linear',
  new_class: Literal['discriminant', 'prototype'] = 'discriminant',
  balance_classes: bool = False,
  anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
  anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
  rpn_samples: int = 256,
  proposals_before: int = 1000,
  proposals: int = 1000,
  regions: int = 512,
  score_threshold: float = 0.05,
  nms_threshold: float = 0.5,
  max_detections: int = 100,
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = ops.IMAGENET_MEAN,
  std: tuple[float, ...] = ops.IMAGENET_STD,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes a Faster R-CNN.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    backbone: a ResNet of ``models.backbone``.
    stages: the network ends after this stage; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    frozen_stages: the stem and this many stages keep their parameters (torchvision: 1).
    update_statistics: False keeps BatchNorm's running statistics, as torchvision does.
    frozen_norm: as of ``models.detector``; True is what torchvision does.
    backbone_rate: factor on the learning rate of the backbone.
    deformable: version of deformable convolution, None for ordinary ones.
    deformable_from: the first stage that gets them.
    neck: feature pyramid.
    neck_channels: channels of every pyramid map.
    first_stage: stage of the finest pyramid map; 2 leaves stride 4 out.
    extra_levels: coarser maps by pooling, for large anchors.
    box_head: two dense layers, or the light GSConv head.
    head_width: width of the dense layers.
    norm: of the GS neck and head; ``'group'`` where few images make a step.
    classifier: linear layer with one box per class, or prototypes with one box per region.
    embedding: F, size of the embedding that is compared with prototypes.
    temperature: tau.
    prototype_momentum: alpha of ``u <- alpha u + (1 - alpha) mean(f)``.
    background: how a prototype head knows the background.
    new_class: how it knows a class that ``adapt`` adds: by the mean of its boxes, or by the plane
      between these and the other regions of their images (``ops.linear_discriminant``), which needs
      references without the class too, with or without boxes.
    balance_classes: weigh the class loss by N_max / N_c.
    anchor_sizes: one side per pyramid map, pixels of the network's image.
    anchor_ratios: height / width.
    rpn_samples: anchors per image in the loss of the proposal network, half of them positive.
    proposals_before: boxes per pyramid map that enter suppression.
    proposals: regions per image that the second stage sees.
    regions: R of them in the loss, a quarter positive.
    score_threshold: detections must score above this.
    nms_threshold: IoU of suppression within a class.
    max_detections: D.
    augmentation: arguments of ``data.augment_boxes.random_box_views``; None trains on the images
      as they are.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, boxes and losses stay float32.
    remat: as of ``models.backbone``: less memory for the gradient, more time.
    accumulate: as of ``optim.gradient_step``; 1 with prototypes or statistics of the batch.
    axis_name: the device axis, for BatchNorm, prototypes and the gradient.

  Returns:
    The ``Method``; ``predict`` gives ``Detections``.

  Raises:
    ValueError: an argument that is none of its choices.
  """
  for argument, value, allowed in (
    ('classifier', classifier, ('linear', 'prototype')),
    ('background', background, ('linear', 'prototype')),
    ('new_class', new_class, ('discriminant', 'prototype')),
  ):
    if value not in allowed:
      raise ValueError(f'{argument} is {value!r}; it can be {", ".join(allowed)}')
  prototypical = classifier == 'prototype'

  trunk: dict[str, Any] = {'stages': stages, 'width': width}
  trunk |= {'deformable': deformable, 'deformable_from': deformable_from}
  layout: dict[str, Any] = {
    **{'neck': neck, 'neck_channels': neck_channels, 'first_stage': first_stage},
    **{'extra_levels': extra_levels, 'box_head': box_head, 'head_width': head_width, 'norm': norm},
    **{'anchor_sizes': tuple(anchor_sizes), 'anchor_ratios': tuple(anchor_ratios)},
  }

  def network(num_classes: int) -> models.Detector:
    fixed = {'frozen_stages': frozen_stages, 'update_statistics': update_statistics}
    types: dict[str, Any] = {'dtype': dtype, 'axis_name': axis_name}
    return models.detector(
      num_classes,
      backbone=models.backbone(backbone, remat=remat, **trunk, **fixed, **types),
      frozen_norm=frozen_norm,
      embedding=embedding if prototypical else None,
      background=background == 'linear',
      **layout,
      **types,
    )

  frozen = network(1).frozen
  rule = optim.partition.scale_by_group(
    optimizer or optax.identity(), lambda path: backbone_rate if path[0] == 'backbone' else 1.0
  )
  rule = optim.partition.freeze(rule, frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return ops.normalize_pixels(image, mean=mean, std=std)

  def model(params: Any, model_state: Any) -> tuple[models.Detector, dict]:
    variables = {'params': params, 'batch_stats': model_state['batch_stats']}
    # Embeddings are compared with any number of classes.
    num = 1 if prototypical else params['predictor']['cls_score']['bias'].shape[0] - 1
    return network(num), variables

  limits: Any = {'num_before': proposals_before, 'num_after': proposals}

  def search(params: Any, model_state: Any, batch: Batch) -> models.Regions:
    image = pixels(batch['image'])
    return models.find_regions(
      *model(params, model_state), image, batch['size'], box_coder=_BOX_CODER, **limits
    )

  def class_logits(described: jax.Array, model_state: Any) -> jax.Array:
    """[N, R, ...] -> [N, R, K + 1], background first."""
    described = described.astype(jnp.promote_types(described.dtype, jnp.float32))
    if not prototypical:
      return described
    flat = described.reshape(-1, described.shape[-1])
    logits = losses.prototype_logits(
      flat[:, :embedding],
      model_state['prototypes'],
      temperature=temperature,
      # Starts where a cosine of one half stands.
      background=0.5 / temperature + flat[:, -1] if background == 'linear' else None,
      discriminants=model_state.get('discriminants'),
    )
    return logits.reshape(*described.shape[:2], -1)  # [N, R, K + 1]

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    key_network, key_prototypes = jax.random.split(key)
    num_classes = len(spec.classes)
    variables = models.initial_variables(
      key_network, network(num_classes), spec.batch['image'], pretrained=pretrained
    )
    params = dict(variables['params'])
    model_state: dict[str, Any] = {'batch_stats': variables['batch_stats']}
    if balance_classes:
      model_state['class_weights'] = losses.balance_weights(jnp.asarray(spec.counts))
    if prototypical:
      means = losses.unit_vectors(jax.random.normal(key_prototypes, (num_classes, embedding)))
      model_state['prototypes'] = jnp.pad(means, ((1, 0), (0, 0)))  # row 0 is the background's
    return optim.initial_state(params, model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    valid = batch['valid']
    key_view, key_anchor, key_region = jax.random.split(key, 3)
    image, boxes, box_valid, size = (batch[k] for k in ('image', 'boxes', 'box_valid', 'size'))
    if augmentation is not None:
      image, boxes, box_valid = augment_boxes.random_box_views(
        key_view, image, boxes, box_valid, batch['index'], **augmentation
      )
      size = jnp.full_like(size, jnp.float32(image.shape[1:3]))  # the picture may lie anywhere
    module, variables = model(params, model_state)
    learn: dict[str, Any] = {'train': True, 'mutable': ['batch_stats']}
    pyramid, updated = module.apply(
      variables, pixels(image), valid=valid, method='pyramid', **learn
    )
    anchors = jax.vmap(functools.partial(ops.anchor_targets, num=rpn_samples), (0, None, 0, 0))(
      example_keys(key_anchor, batch['index']), pyramid.anchors, boxes, box_valid
    )
    first = jax.vmap(losses.proposal_loss)(pyramid.objectness, pyramid.deltas, anchors)  # 2 of [N]

    target = jax.vmap(functools.partial(ops.region_targets, num=regions))(
      example_keys(key_region, batch['index']),
      *models.propose(pyramid, size, **limits),
      boxes,
      batch['box_label'],
      box_valid,
    )
    counted = target.valid & valid[:, None]
    (described, box_deltas), updated = module.apply(
      {**variables, **updated}, pyramid, target.boxes, valid=counted, method='regions', **learn
    )
    logits = class_logits(described, model_state)
    weights = jnp.append(1.0, model_state['class_weights']) if balance_classes else None
    second = jax.vmap(functools.partial(losses.region_loss, class_weights=weights))(
      logits, box_deltas, target
    )

    new_state = {**model_state, **updated}
    if prototypical:
      vectors = jax.lax.stop_gradient(described[..., :embedding]).reshape(-1, embedding)
      new_state['prototypes'] = losses.update_prototypes(
        model_state['prototypes'],
        losses.unit_vectors(vectors),
        target.label.reshape(-1),
        momentum=prototype_momentum,
        valid=counted.reshape(-1),
        axis_name=axis_name,
      )
    names, terms = ('rpn_objectness', 'rpn_box', 'classification', 'box'), first + second
    weight = valid.sum().astype(jnp.float32)
    scalars = {name: (jnp.where(valid, t, 0.0).sum(), weight) for name, t in zip(names, terms)}
    positive = (target.label > 0) & counted
    right = positive & (logits.argmax(-1) == target.label)
    scalars['accuracy'] = tuple(x.sum().astype(jnp.float32) for x in (right, positive))
    return jnp.where(valid, sum(terms), 0.0).sum(), (weight, new_state, scalars)

  coupled = None
  if prototypical:
    coupled = "prototypes follow the regions of the whole batch (classifier='linear' has none)"
  elif update_statistics or (norm == 'batch' and 'gs' in neck + box_head):
    coupled = 'BatchNorm takes its statistics from the whole batch (see update_statistics, norm)'
  parts: Any = {'accumulate': accumulate, 'coupled': coupled, 'average_decay': average_decay}
  step = optim.gradient_step(loss, rule, axis_name=axis_name, frozen=frozen, **parts)

  @functools.partial(jax.jit, static_argnames='others')
  def describe(params: Any, model_state: Any, batch: Batch, *, others: bool):
    """Embeddings [N, M, F] of the true boxes, their classes and which there are.

    With ``others`` also of all that is found, [N, M + P, F]; its class is -1 where no box is.
    """
    module, variables = model(params, model_state)
    pyramid = module.apply(variables, pixels(batch['image']), method='pyramid')
    true = tuple(batch[k] for k in ('boxes', 'box_label', 'box_valid'))
    described = module.apply(variables, pyramid, true[0], method='regions')[0]
    parts = described, *true[1:]
    if others:
      found = search(params, model_state, batch)
      label = jax.vmap(ops.label_boxes)(found.boxes[:, :, 0], *true)
      pairs = zip(parts, (found.described, label, found.valid))
      parts = tuple(jnp.concatenate(pair, axis=1) for pair in pairs)
    return parts[0][..., :embedding], parts[1], parts[2] & batch['valid'][:, None]

  def embed(params: Any, model_state: Any, references: References, *, others: bool) -> Any:
    """Embeddings [B, F] and classes [B] of the references' boxes, and of ``others``."""
    found = []
    for batch in references.batches:
      *parts, valid = map(np.asarray, describe(params, model_state, batch, others=others))
      found.append([part[valid] for part in parts])
    return map(np.concatenate, zip(*found))

  def prepare(key: jax.Array, state: State, references: References | None) -> State:
    """Sets the prototypes to the mean embeddings of the support set.

    An untrained head embeds all regions alike, and prototypes that all but coincide tell nothing
    apart: so the mean over the classes is taken out first, through the embedding's bias.
    """
    del key
    if not prototypical or references is None:
      return state
    vectors, labels = embed(state.params, state.model_state, references, others=False)
    means, counts, center = losses.centred_means(vectors, labels, len(references.classes))
    old = state.model_state['prototypes']
    prototypes = old.at[1:].set(jnp.where(counts[:, None] > 0, means, old[1:]))
    params = jax.tree.map(lambda leaf: leaf, state.params)  # new dicts, the same arrays
    params['predictor']['embedding']['bias'] -= center
    model_state = {**state.model_state, 'prototypes': prototypes}
    return state._replace(params=params, model_state=model_state)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Adds the classes that the references know and the detector does not; others stay."""
    del key
    new = tuple(c for c in references.classes if c not in fitted.classes)
    if not new:
      return fitted
    if not prototypical:
      raise NewClassError(
        f'a detector with a linear classifier cannot learn the class {new[0]!r} without training; '
        "one with classifier='prototype' can"
      )
    # Once one class has a discriminant, later ones do: logits follow the order of the classes.
    others = new_class == 'discriminant' or 'discriminants' in fitted.model_state
    vectors, labels = embed(fitted.params, fitted.model_state, references, others=others)
    rows = [references.classes.index(c) for c in new]
    for name, row in zip(new, rows):
      if not (labels == row).any():
        raise ValueError(f'the references hold no box of the class {name!r}')
    vectors = losses.unit_vectors(vectors)
    column = 'discriminants' if others else 'prototypes'
    fit = ops.linear_discriminant if others else lambda x, own: x[own].mean(0)
    more = jnp.stack([fit(vectors, labels == row) for row in rows])
    more = jnp.concatenate([fitted.model_state.get(column, more[:0]), more])
    model_state = {**fitted.model_state, column: more}
    return dataclasses.replace(fitted, model_state=model_state, classes=fitted.classes + new)

  def predict(fitted: Fitted, batch: Batch) -> Detections:
    found = search(fitted.params, fitted.model_state, batch)
    scores = jax.nn.softmax(class_logits(found.described, fitted.model_state))[..., 1:]  # [N, P, K]
    boxes = found.boxes if prototypical else found.boxes[:, :, 1:]  # without the background's
    thresholds: Any = {'score_threshold': score_threshold, 'iou_threshold': nms_threshold}
    select = functools.partial(ops.select_detections, num_after=max_detections, **thresholds)
    kept = Detections(*jax.vmap(select)(scores, boxes, found.valid))
    return kept._replace(valid=kept.valid & batch['valid'][:, None])

  @functools.partial(jax.jit, static_argnames='layer')
  def sampling(fitted: Fitted, batch: Batch, *, layer: str) -> jax.Array:
    """Offsets [N, h, w, 18] of a deformable convolution of stride 1, ``'layer3.1/conv2'``."""
    module, variables = model(fitted.params, fitted.model_state)
    return models.sampling_offsets(module, variables, pixels(batch['image']), layer)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      **{'backbone': backbone, **trunk, **layout, 'classifier': classifier},
      **{'embedding': embedding, 'temperature': temperature, 'background': background},
      **{'proposals_before': proposals_before, 'proposals': proposals},
      **{'score_threshold': score_threshold, 'nms_threshold': nms_threshold},
      **{'max_detections': max_detections, 'classes': list(fitted.classes)},
      **{'mean': list(mean), 'std': list(std)},
    }
    state = fitted.model_state
    memory = {name: state[name] for name in ('prototypes', 'discriminants') if name in state}
    arrays = {'params': fitted.params, 'batch_stats': state['batch_stats'], 'memory': memory}
    return 'faster_rcnn', arguments, arrays

  return Method(
    init, prepare, step, adapt, predict, deploy=deploy, sampling=sampling if deformable else None
  )
