"""A detector of the YOLOv8 class: one stage, no anchors, random weights; to compare others with.

No paper describes the whole; it is written from the papers of its parts (the network:
``models.Yolo``). Of an image's cells a with logits z_a, boxes b_a and distributions S_a, those that
learn an object m(a), and the score c_a that they should then give its class, are assigned by what
the network now says (TOOD, ``ops.task_aligned_targets``). The loss is

  L = ( w_cls sum_ak BCE(z_ak, c_a [k is the class of m(a)])
      + w_box sum_a c_a CIoU(b_a, m(a))
      + w_dfl sum_a c_a mean_edges DFL(S_a, distance to m(a)) ) / max(sum_a c_a, 1)

with all sums over the whole batch, on all devices (the Task-aligned loss of TOOD, section 3.2, with
the box losses of Distance-IoU and Generalized Focal Loss).

- TOOD's focal weight on the negatives is left out: plain cross-entropy, as in the YOLOv8 class,
  whose weights (0.5, 7.5, 1.5), exponents (0.5, 6) and number of positives (10) are the defaults.
- A distance beyond B - 1 cells counts as that: at most 480 pixels from the centre at stride 32.
- An object that no cell's centre lies inside is not learnt: it is thinner than 8 pixels.
- Mosaics, which need the other pictures of the batch, are left out of the views.
- A cell may give several classes; boxes of one class are suppressed.

Shape legend: N images, H x W pixels, M true boxes, A cells, K classes, B bins, D detections.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdefect import losses, models, ops, optim
from jaxdefect.contracts import (
  Batch,
  DataSpec,
  Detections,
  Fitted,
  Method,
  References,
  State,
  refuse_new_classes,
)
from jaxdefect.data import augment_boxes


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  width: float = 0.25,
  depth: float = 1 / 3,
  num_bins: int = 16,
  top_k: int = 10,
  alpha: float = 0.5,
  beta: float = 6.0,
  class_weight: float = 0.5,
  box_weight: float = 7.5,
  distribution_weight: float = 1.5,
  score_threshold: float = 0.01,
  nms_threshold: float = 0.5,
  max_detections: int = 100,
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = (0.0, 0.0, 0.0),
  std: tuple[float, ...] = (1.0, 1.0, 1.0),
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes a single-stage detector.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    width: factor on the channels: 0.25 is the size 'n', 0.5 is 's'.
    depth: factor on the numbers of bottlenecks: 1/3 for both sizes.
    num_bins: B, of a distance.
    top_k: most positives of an object.
    alpha: exponent of the score in the alignment.
    beta: exponent of the overlap in the alignment.
    class_weight: w_cls.
    box_weight: w_box.
    distribution_weight: w_dfl.
    score_threshold: detections must score above this.
    nms_threshold: IoU of suppression within a class.
    max_detections: D.
    augmentation: arguments of ``data.augment_boxes.random_box_views``; None trains on the images
      as they are.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, boxes and losses stay float32.
    accumulate: 1, as BatchNorm takes its statistics from the whole batch.
    axis_name: the device axis, for BatchNorm, the sum of the scores and the gradient.

  Returns:
    The ``Method``; ``predict`` gives ``Detections``. ``adapt`` cannot add a class.

  Raises:
    ValueError: accumulate is not 1.
  """
  rule = optimizer or optax.identity()

  def forward(params: Any, model_state: Any, image: jax.Array, **settings: Any) -> Any:
    num_classes = params['head']['cls.0.2']['bias'].shape[0]
    image = ops.normalize_pixels(image, mean=mean, std=std)
    variables = {'params': params, 'batch_stats': model_state['batch_stats']}
    return network(num_classes).apply(variables, image, **settings)

  def network(num_classes: int) -> models.Yolo:
    return models.Yolo(num_classes, width, depth, num_bins, dtype=dtype, axis_name=axis_name)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(
      key, network(len(spec.classes)), spec.batch['image'], pretrained=pretrained
    )
    model_state = {'batch_stats': variables['batch_stats']}
    return optim.initial_state(variables['params'], model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    valid = batch['valid']
    image, boxes, box_valid = (batch[name] for name in ('image', 'boxes', 'box_valid'))
    if augmentation is not None:
      image, boxes, box_valid = augment_boxes.random_box_views(
        key, image, boxes, box_valid, batch['index'], **augmentation
      )
    said, updated = forward(
      params, model_state, image, train=True, valid=valid, mutable=['batch_stats']
    )
    assign = functools.partial(ops.task_aligned_targets, top_k=top_k, alpha=alpha, beta=beta)
    targets = jax.vmap(assign, (0, 0, None, 0, 0, 0))(
      jax.nn.sigmoid(said.logits), said.boxes, said.centres, boxes, batch['box_label'], box_valid
    )
    label = jnp.take_along_axis(batch['box_label'], targets.target, axis=1)  # [N, A]
    # What is no positive counts with weight 0, and is compared with itself: padding has no size.
    goal = jnp.take_along_axis(boxes, targets.target[..., None], axis=1)  # [N, A, 4]
    goal = jnp.where(targets.positive[..., None], goal, jax.lax.stop_gradient(said.boxes))

    wanted = targets.score[..., None] * jax.nn.one_hot(label, said.logits.shape[-1])
    wrong = losses.sigmoid_cross_entropy(said.logits, wanted).sum((1, 2))  # [N]
    away = (targets.score * losses.complete_iou(said.boxes, goal)).sum(1)
    outwards = jnp.array([-1.0, -1.0, 1.0, 1.0]) / said.strides[:, None]  # [A, 4], in cells
    distance = (goal - jnp.tile(said.centres, 2)) * outwards
    spread = losses.distribution_focal(said.bins, distance).mean(-1)  # [N, A]
    spread = (targets.score * spread).sum(1)

    score = jnp.where(valid, targets.score.sum(1), 0.0).sum()
    weight = valid.sum().astype(score.dtype)
    totals = (score, weight)
    if axis_name is not None:
      totals = jax.lax.psum(totals, axis_name)
    # The step divides by the number of images: here by the scores instead.
    factor = totals[1] / jnp.maximum(totals[0], 1)
    terms = {
      'classification': class_weight * wrong,
      'box': box_weight * away,
      'distribution': distribution_weight * spread,
    }
    scalars = {
      name: (factor * jnp.where(valid, term, 0.0).sum(), weight) for name, term in terms.items()
    }
    total = jnp.stack([term for term, _ in scalars.values()]).sum()
    positives = (targets.positive & valid[:, None]).sum().astype(weight.dtype)
    scalars |= {'positives': (positives, weight), 'alignment': (score, positives)}
    return total, (weight, {**model_state, **updated}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    average_decay=average_decay,
    accumulate=accumulate,
    coupled='BatchNorm takes its statistics from the whole batch',
  )

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    del key
    refuse_new_classes(
      fitted, references, method='yolo', instead="faster_rcnn with classifier='prototype' can"
    )
    return fitted

  def predict(fitted: Fitted, batch: Batch) -> Detections:
    said = forward(fitted.params, fitted.model_state, batch['image'])
    boxes = ops.clip_boxes(said.boxes, batch['size'][:, None])[:, :, None]  # [N, A, 1, 4]
    everywhere = jnp.ones(said.logits.shape[:2], bool)
    thresholds: Any = {'score_threshold': score_threshold, 'iou_threshold': nms_threshold}
    select = functools.partial(ops.select_detections, num_after=max_detections, **thresholds)
    kept = Detections(*jax.vmap(select)(jax.nn.sigmoid(said.logits), boxes, everywhere))
    return kept._replace(valid=kept.valid & batch['valid'][:, None])

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      **{'width': width, 'depth': depth, 'num_bins': num_bins, 'classes': list(fitted.classes)},
      **{'score_threshold': score_threshold, 'nms_threshold': nms_threshold},
      **{'max_detections': max_detections, 'mean': list(mean), 'std': list(std)},
    }
    arrays = {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']}
    return 'yolo', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, deploy=deploy)
