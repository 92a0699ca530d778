"""What a training step sends between devices, counted in the traced step: nothing is run.

    python -m benchmarks.collectives

Every method that trains, with its usual config, and the networks whose step other benchmarks time.
A step made for many devices (``axis_name``) is traced, and the operands of its collectives are
added up. Writes ``benchmarks/results/collectives.json``, which holds for every machine, and from
which ``docs/performance.md`` predicts how training scales.

As in what XLA makes of the step, constants such as the zero gradient of a frozen layer are not
counted (XLA drops the zeros; scalars may be left), and collectives that do not wait for one another
travel together. A *round* is what has to wait: as many as collectives follow from each other.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from benchmarks import detector, timing

AXIS = 'devices'
KINDS = {
  'psum': 'all_reduce',
  'pmax': 'all_reduce',
  'pmin': 'all_reduce',
  'all_gather': 'all_gather',
  'reduce_scatter': 'reduce_scatter',
}
_SENDS_NOTHING = ('axis_index', 'pvary')
_CONSTANT = -1  # the round of what depends on no input

# Method -> the config that trains it, and how many classes its data have.
METHODS = {
  'classifier': ('classifier_neu', 6),
  'contrastive_margin': ('contrastive_margin_neu', 6),
  'faster_rcnn': ('faster_rcnn_neu_det', 6),
  'medetection': ('medetection_bc', 2),
  'hybrid': ('hybrid_bc', 2),
  'nearest_neighbor': ('nearest_neighbor_bc:self_supervised', 2),
  'deep_svdd': ('deep_svdd_bc', 2),
  'patch_svdd': ('patch_svdd_bc', 2),
  'ganomaly': ('ganomaly_bc', 2),
  'uninformed_students': ('uninformed_students_bc', 2),
  'siamese_one_shot': ('siamese_one_shot_neu', 6),
  'casi_net': ('casi_net_neu', 6),
  'multi_training_gan': ('multi_training_gan_neu', 6),
  'dc_net': ('dc_net_mixedwm38', 38),
  'wafer_seg_class_net': ('wafer_seg_class_net_mixedwm38', 38),
  'yolo': ('yolo_neu_det', 6),
}
RECOGNISERS = ('resnet50', 'resnet18', 'mobilenet_v2')  # of benchmarks.cpu and benchmarks.gpu
CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'


class Collective(NamedTuple):
  """One of a step's collectives.

  Attributes:
    kind: 'all_reduce', 'all_gather' or 'reduce_scatter'.
    size: bytes of one device's part: the operand, for ``reduce_scatter`` the result.
    round: 1 where it waits for no other; else one more than what it waits for.
    place: file of the package that asks for it.
  """

  kind: str
  size: int
  round: int
  place: str


def count(step: Callable, *operands: Any, axis_name: str = AXIS) -> list[Collective]:
  """Traces ``step(*operands)`` on two devices and lists its collectives.

  Args:
    step: traceable, with collectives over ``axis_name``.
    *operands: arrays or ``jax.ShapeDtypeStruct``, one device's part.
    axis_name: the axis of devices.

  Returns:
    The collectives in the order of the program; those in a loop as often as it turns.

  Raises:
    ValueError: a collective that is not in ``KINDS``, or one whose number is not known before.
  """
  closed = jax.make_jaxpr(step, axis_env=[(axis_name, 2)])(*operands)
  found: list[Collective] = []
  _walk(closed.jaxpr, [0] * len(closed.jaxpr.invars), axis_name, found)
  return found


def summary(found: list[Collective]) -> dict[str, Any]:
  """Bytes of each kind by the file that asks for them, and the number of rounds."""
  sizes: dict[str, dict[str, int]] = {kind: {} for kind in sorted(set(KINDS.values()))}
  for one in found:
    sizes[one.kind][one.place] = sizes[one.kind].get(one.place, 0) + one.size
  return {'rounds': max((one.round for one in found), default=0), **sizes}


def _walk(
  jaxpr: core.Jaxpr, rounds: list[int], axis_name: str, found: list[Collective]
) -> list[int]:
  """Adds a program's collectives to ``found``; takes its inputs' rounds, gives its outputs'."""
  known: dict[Any, int] = dict.fromkeys(jaxpr.constvars, _CONSTANT)
  known |= dict(zip(jaxpr.invars, rounds))

  def read(v: Any) -> int:
    return _CONSTANT if isinstance(v, core.Literal) else known[v]

  for eqn in jaxpr.eqns:
    into = [read(v) for v in eqn.invars]
    latest = max(into, default=_CONSTANT)
    name, bodies = eqn.primitive.name, list(_bodies(eqn))
    if axis_name in _axes(eqn) and name not in _SENDS_NOTHING:
      if name not in KINDS:
        raise ValueError(f'the step has the collective {name}, which is not among {list(KINDS)}')
      if latest > _CONSTANT:
        latest += 1
        sides = eqn.outvars if name == 'reduce_scatter' else eqn.invars
        sent = [v for v, r in zip(sides, into) if r > _CONSTANT]
        size = sum(_size(v.aval) for v in sent)
        found.append(Collective(KINDS[name], size, latest, _place(eqn)))
      out = [latest] * len(eqn.outvars)
    elif name == 'scan' and _sends(bodies, axis_name):
      out = _scan(eqn, into, axis_name, found)
    elif len(bodies) == 1 and len(bodies[0].invars) == len(into) and name != 'scan':
      out = _walk(bodies[0], into, axis_name, found)
    elif _sends(bodies, axis_name):
      raise ValueError(f'the collectives inside {name} cannot be counted before it runs')
    else:
      out = [max(latest, 0) if name == 'axis_index' else latest] * len(eqn.outvars)
    known |= dict(zip(eqn.outvars, out))
  return [read(v) for v in jaxpr.outvars]


def _scan(eqn: Any, into: list[int], axis_name: str, found: list[Collective]) -> list[int]:
  """As ``_walk``, turn by turn: a carried value waits for the turn before."""
  fixed, carried = eqn.params['num_consts'], eqn.params['num_carry']
  body = eqn.params['jaxpr'].jaxpr
  out: list[int] = []
  for _ in range(eqn.params['length']):
    out = _walk(body, into, axis_name, found)
    into = [*into[:fixed], *out[:carried], *into[fixed + carried :]]
  return out


def _size(array: Any) -> int:
  return int(np.prod(array.shape)) * array.dtype.itemsize


def _bodies(eqn: Any) -> Iterator[core.Jaxpr]:
  for value in eqn.params.values():
    for one in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(one, core.ClosedJaxpr):
        yield one.jaxpr
      elif isinstance(one, core.Jaxpr):
        yield one


def _axes(eqn: Any) -> tuple:
  named = [eqn.params.get(key, ()) for key in ('axes', 'axis_name')]
  return tuple(x for one in named for x in (one if isinstance(one, (tuple, list)) else (one,)))


def _sends(bodies: list[core.Jaxpr], axis_name: str) -> bool:
  return any(
    (axis_name in _axes(eqn) and eqn.primitive.name not in _SENDS_NOTHING)
    or _sends(list(_bodies(eqn)), axis_name)
    for body in bodies
    for eqn in body.eqns
  )


def _place(eqn: Any) -> str:
  """The innermost file of the package that the equation comes from."""
  frames = eqn.source_info.traceback.frames if eqn.source_info.traceback else ()
  files = [frame.file_name.rpartition('/jaxdefect/')[2] for frame in frames]
  inside = [file for file, frame in zip(files, frames) if '/jaxdefect/' in frame.file_name]
  return inside[0] if inside else 'elsewhere'


def count_step(method: Any, spec: Any) -> dict[str, Any]:
  """What a method made with ``axis_name=AXIS`` sends, and how many parameters it has."""
  state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
  found = count(method.step, jax.random.key(0), state, spec.batch)
  sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.params)]
  return {'parameters': sum(sizes), **summary(found)}


def of_method(name: str) -> dict[str, Any]:
  """A method with its config of ``METHODS``; its whole batch is one device's."""
  from jaxdefect.contracts import DataSpec
  from launch import command, experiment

  named, number = METHODS[name]
  stem, colon, variant = named.partition(':')
  config: Any = command.load_config(f'{CONFIGS / stem}.py{colon}{variant}')
  classes = ('good', *(f'defect {label}' for label in range(1, number)))
  method = experiment.make_method(config, steps=config.steps, axis_name=AXIS)
  spec = DataSpec(experiment.batch_spec(config), classes, (10,) * len(classes))
  return {'config': named, **count_step(method, spec)}


def of_benchmarks() -> dict[str, Any]:
  """The networks whose training step ``benchmarks.cpu``, ``gpu`` and ``detector`` time."""
  from benchmarks.ours import CLASSES
  from jaxdefect import methods
  from jaxdefect.contracts import DataSpec
  from jaxdefect.data import batching

  def spec(batch: Any, classes: int) -> DataSpec:
    return DataSpec(batch, tuple(f'class {c}' for c in range(classes)), (10,) * classes)

  cases = {}
  for name in RECOGNISERS:
    method = methods.load('classifier')(backbone=name, axis_name=AXIS)
    cases[name] = count_step(method, spec(batching.batch_spec(8, (224, 224)), CLASSES))
  for name, settings in detector.VARIANTS.items():
    method = methods.load('faster_rcnn')(axis_name=AXIS, **settings)
    boxes = batching.batch_spec(2, (640, 640), max_boxes=8)
    cases[f'detector: {name}'] = count_step(method, spec(boxes, detector.CLASSES))
  return cases


def main() -> None:
  argparse.ArgumentParser(description='What training sends between devices.').parse_args()
  cases: dict[str, Any] = {'methods': {}}
  for name in METHODS:
    cases['methods'][name] = of_method(name)
    print(name, cases['methods'][name], flush=True)
  cases['benchmarks'] = of_benchmarks()
  report = {
    'benchmark': 'collectives',
    'date': time.strftime('%Y-%m-%d'),
    'versions': {'jax': jax.__version__},
    'cases': cases,
  }
  path = timing.RESULTS / 'collectives.json'
  path.write_text(json.dumps(report, indent=2) + '\n')
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
