"""The one contract: a method is a ``NamedTuple`` of pure functions.

The training loop, the evaluation, the exporter and the launchers know these types and nothing
about any method's name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

PyTree = Any


class DataSpec(NamedTuple):
  """What the data look like; static.

  Attributes:
    batch: ``jax.ShapeDtypeStruct`` for every key of one (per-device) training batch.
    classes: class names; ``batch['label']`` counts in them.
    counts: training images per class, in the order of ``classes``.
  """

  batch: PyTree
  classes: tuple[str, ...]
  counts: tuple[int, ...]


class State(NamedTuple):
  """Everything that training changes; arrays only, so it is donated and checkpointed.

  Attributes:
    step: int32 scalar, number of finished steps.
    params: trainable (and frozen) parameters.
    model_state: what the forward pass carries and no gradient moves: BatchNorm statistics under
      ``'batch_stats'``, prototypes, a one-class centre, the running average of the parameters
      under ``'average_params'``.
    opt_state: the optimiser's state; any pytree.
  """

  step: jax.Array
  params: PyTree
  model_state: PyTree
  opt_state: PyTree


@flax.struct.dataclass
class Fitted:
  """A method that is ready to predict: all that evaluation, review and export ever see.

  Attributes:
    params: parameters that predict.
    model_state: as in ``State``.
    memory: what ``adapt`` gathered: reference embeddings and their ids, a bank, ... or None.
    calibration: temperatures and thresholds, or None.
    classes: names of the classes that predictions count in; static.
  """

  params: PyTree
  model_state: PyTree
  memory: PyTree = None
  calibration: PyTree = None
  classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())


class Method(NamedTuple):
  """The functions of one paper.

  Attributes:
    init: ``(key, spec, pretrained=None) -> State``; traceable. ``pretrained`` is a (partial) tree
      ``{'params': ..., 'batch_stats': ...}`` laid over the fresh variables.
    prepare: ``(key, state, references) -> State``; on the host, once before step 0;
      keeps the structure, shapes and types of the state (a checkpoint is read into init's).
    step: ``(key, state, batch) -> (State, scalars)``; traceable. ``key`` is the run's, the same in
      every step: fold it with ``state.step`` (``optim.gradient_step`` does). ``scalars`` maps a
      name to ``(sum, count)``, already summed over devices.
    adapt: ``(key, fitted, references) -> Fitted``; on the host, repeatable.
    predict: ``(fitted, batch) -> predictions``; traceable and deterministic; a row depends on its
      own image alone.
    activations: ``(fitted, batch, tap) -> (predictions, feature_maps)``; ``tap`` is added to the
      last feature maps [N,h,w,C] (None adds nothing), so that its gradient is theirs.
    deploy: ``fitted -> (family, arguments, arrays)`` for the PyTorch and ONNX twins.
    sampling: ``(fitted, batch, *, layer) -> offsets`` [N,h,w,2*G*kh*kw] of a deformable
      convolution, so that where it looks can be drawn.
  """

  init: Callable[..., State]
  prepare: Callable[..., State]
  step: Callable[..., tuple[State, dict]]
  adapt: Callable[..., Fitted]
  predict: Callable[..., Any]
  activations: Callable[..., tuple] | None = None
  deploy: Callable[..., tuple] | None = None
  sampling: Callable[..., Any] | None = None


def to_fitted(state: State, classes: tuple[str, ...]) -> Fitted:
  """Drops the optimiser; the running average of the parameters predicts where one is kept."""
  model_state = dict(state.model_state)
  params = model_state.pop('average_params', state.params)
  return Fitted(params=params, model_state=model_state, classes=tuple(classes))
