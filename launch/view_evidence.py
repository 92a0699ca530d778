"""Does an augmentation help a model of 35 pictures? The same small data sets, with and without it.

As in ``launch.evidence``, small data sets are drawn out of a real one and the truth is the AUROC on
everything that was not drawn; the head sees random views of its training pictures beside them.
"""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxdefect import data
from jaxdefect.data.folds import Fold
from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import cross_validation, delong, intervals
from launch import evidence, evidence_tables, experiment, frozen
from launch.evidence import Problem
from launch.evidence_tables import HELD_OUT, PICTURES, VIEWS_OF_EACH, Setting
from launch.frozen_folds import ViewFolds
from launch.trained_folds import TrainedFolds
from launch.versions import versions

_SCHEMES = ('leave_one_out', 'leave_pair_out')


def hue_jitter(key: jax.Array, image: jax.Array, index: jax.Array, label: jax.Array) -> jax.Array:
  r"""Turns the hue of each image by a random angle: what this library refuses to do to a defect.

  The chroma plane of YIQ is turned by an angle uniform in +-180 degrees; gray stays gray.

  Args:
    key: typed PRNG key.
    image: [N, H, W, 3] pixels 0..255.
    index: [N].
    label: not used.

  Returns:
    [N, H, W, 3] float32.
  """
  del label
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  angle = jax.vmap(lambda one: jax.random.uniform(one, minval=-jnp.pi, maxval=jnp.pi))(keys)
  to_yiq = jnp.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
  zero, cosine, sine = jnp.zeros_like(angle), jnp.cos(angle), jnp.sin(angle)
  turn = jnp.stack(
    [zero + 1, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=-1
  ).reshape(-1, 3, 3)  # fmt: skip
  whole = jnp.linalg.inv(to_yiq) @ turn @ to_yiq  # [N, 3, 3]
  turned = jnp.einsum('nrc,nhwc->nhwr', whole, image.astype(jnp.float32))
  return jnp.clip(turned, 0, 255)


def drawn(problem: Problem, setting: Setting, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """The pictures that train, and those that are held out, of one small data set."""
  counts = PICTURES - setting.positives, setting.positives
  whole = evidence.draw(problem, counts, seed, np.arange(len(problem.names)))
  positives = round(HELD_OUT * setting.positives / PICTURES)
  held = evidence.draw(problem, (HELD_OUT - positives, positives), seed, whole)
  return np.setdiff1d(whole, held), held


def trial(
  problem: Problem, views: np.ndarray, setting: Setting, seed: int
) -> dict[str, dict[str, float]]:
  """What is said and what is true with views and without, of one small data set.

  Args:
    problem: all pictures; features of the pictures as they are.
    views: [N, V, F] features of random views; NaN for pictures that never train.
    setting: of the problem.
    seed: of the data set.

  Returns:
    ``{'with': figures, 'without': figures}``.
  """
  training, held = drawn(problem, setting, seed)
  rest = np.setdiff1d(np.arange(len(problem.names)), np.concatenate([training, held]))
  # Pictures of a group that trains are in no other part: groups are drawn whole.
  marks = problem.positive
  given = Samples(
    names=tuple(problem.names[training].tolist()),
    labels=marks[training].astype(np.int32),
    classes=(evidence.OTHER, setting.positive),
    groups=problem.groups[training],
  )
  found = {}
  for name, extra in (('with', views[training]), ('without', views[training][:, :0])):
    rows = np.concatenate([problem.features[training][:, None], extra], axis=1)
    scorer = ViewFolds(rows, marks[training], strength=setting.strength)
    said = cross_validation.evaluate(
      scorer, given, positive=setting.positive, schemes=_SCHEMES, num_resamples=1, seed=seed
    )
    scores = scorer.of_others(problem.features[np.concatenate([rest, held])])
    figures = {scheme: said['metrics'][f'auroc/{scheme}'] for scheme in _SCHEMES}
    figures['truth'] = delong.auroc(scores[: len(rest)], marks[rest]).value
    figures['hold_out'] = delong.auroc(scores[len(rest) :], marks[held]).value
    found[name] = figures
  return found


def of_cell(row: str, column: str, config: ConfigDict, directory: pathlib.Path) -> dict[str, Any]:
  """The report of one cell.

  Args:
    row: backbone and name of the views, as in ``evidence_tables.VIEWS``.
    column: of the data set.
    config: of the cell.
    directory: of the features.

  Returns:
    A report as ``reproduce.compact`` takes it; ``n`` counts the small data sets.
  """
  started = time.monotonic()
  name = row.rsplit(': ', 1)[1]
  setting, settings = evidence_tables.SETS[column][1], evidence_tables.VIEWS[name]
  problem = evidence.load(config, setting, directory)
  seeds = evidence_tables.VIEW_SEEDS
  training = np.unique(np.concatenate([drawn(problem, setting, seed)[0] for seed in seeds]))
  views = np.full((len(problem.names), 0, problem.features.shape[1]), np.nan)
  if settings is not None:
    views = np.full((len(problem.names), VIEWS_OF_EACH, problem.features.shape[1]), np.nan)
    views[training] = _views(config, problem, training, name, directory)
  trials = [trial(problem, views, setting, seed) for seed in seeds]
  return {
    **_summary(trials),
    'split': {
      'kind': 'resampled',
      'seeds': [min(seeds), max(seeds)],
      'pictures': PICTURES,
      'held_out': HELD_OUT,
      'views': 0 if settings is None else VIEWS_OF_EACH,
      'augmentation': settings,
      **setting._asdict(),
    },
    'config': config.to_dict(),
    'seconds': round(time.monotonic() - started, 1),
    'versions': versions(),
  }


def of_trained_cell(
  row: str, column: str, config: ConfigDict, training: ConfigDict, directory: pathlib.Path
) -> dict[str, Any]:
  """The report of a network that is trained on 35 pictures; it is tested, not cross-validated.

  Args:
    row: name of the network.
    column: of the data set.
    config: of the features of ``evidence.load``, which say what is a near-copy.
    training: of the network; its data are replaced by those of ``config``.
    directory: of the features and of what was trained.
  """
  started = time.monotonic()
  setting = evidence_tables.SETS[column][1]
  problem = evidence.load(config, setting, directory)
  size = training.data.image_size
  training.data = config.data
  training.data.image_size = size
  source = _binary(experiment.load_source(training.data), problem, setting)
  scorer = TrainedFolds(
    training,
    source,
    range(len(source)),
    positive=setting.positive,
    directory=directory / row.replace(' ', '_'),
    progress=False,
  )
  columns: dict[str, list[float]] = {'truth': [], 'hold_out': []}
  for seed in evidence_tables.TRAINED_SEEDS[row]:
    own, held = drawn(problem, setting, seed)
    rest = np.setdiff1d(np.arange(len(source)), np.concatenate([own, held]))
    scores = scorer([Fold(own, np.concatenate([rest, held]))])[0]
    for name, part, values in (
      ('truth', rest, scores[: len(rest)]),
      ('hold_out', held, scores[len(rest) :]),
    ):
      columns[name].append(delong.auroc(values, problem.positive[part]).value)
  found = {name: np.array(values) for name, values in columns.items()}
  return {
    **_means({**found, 'bias/hold_out': found['hold_out'] - found['truth']}),
    'split': {
      'kind': 'resampled',
      'seeds': list(evidence_tables.TRAINED_SEEDS[row]),
      'pictures': PICTURES,
      'held_out': HELD_OUT,
      **setting._asdict(),
    },
    'config': training.to_dict(),
    'start_weights': scorer.start_weights,
    'seconds': round(time.monotonic() - started, 1),
    'versions': versions(),
  }


def _binary(source: data.Source, problem: Problem, setting: Setting) -> data.Source:
  """The pictures of the problem in its order, of two classes."""
  place = {name: i for i, name in enumerate(source.names)}
  kept = source.subset([place[name] for name in problem.names.tolist()])
  return dataclasses.replace(
    kept, classes=(evidence.OTHER, setting.positive), labels=problem.positive.astype(np.int32)
  )


def _views(
  config: ConfigDict, problem: Problem, training: np.ndarray, name: str, directory: pathlib.Path
) -> np.ndarray:
  """[t, V, F] computed, or read back."""
  path = directory / f'views_{name.replace(" ", "_")}.npz'
  names = problem.names[training].tolist()
  if not path.exists():
    source = experiment.load_source(config.data)
    place = {one: i for i, one in enumerate(source.names)}
    settings = evidence_tables.VIEWS[name]
    draw = hue_jitter
    if settings != evidence_tables.HUE:
      draw = frozen.random_views({**evidence_tables.NOTHING, **settings}, source.classes)
    indices = [place[one] for one in names]
    made = frozen.features(config, source, indices, draw=draw, views=VIEWS_OF_EACH)[:, 1:]
    partial = directory / 'views.partial.npz'
    np.savez(partial, views=made, names=names)
    partial.replace(path)
  with np.load(path) as stored:
    if stored['names'].tolist() != names:
      raise ValueError(f'{path} has the views of other pictures; delete it.')
    return stored['views']


def _summary(trials: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
  metrics = {}
  columns = {
    key: np.array([one['with'][key] for one in trials]) for key in ('truth', 'hold_out', *_SCHEMES)
  }
  columns['gain'] = columns['truth'] - np.array([one['without']['truth'] for one in trials])
  for scheme in (*_SCHEMES, 'hold_out'):
    columns[f'bias/{scheme}'] = columns[scheme] - columns['truth']
    metrics[f'error_sd/{scheme}'] = float(columns[f'bias/{scheme}'].std(ddof=1))
  found = _means(columns)
  found['metrics'] |= metrics
  return {**found, 'n': len(trials)}


def _means(columns: dict[str, np.ndarray]) -> dict[str, Any]:
  """Means over small data sets with Student's interval; of an AUROC it ends at 0 and 1."""
  metrics, ends, spread = {}, {}, {}
  for name, values in columns.items():
    metrics[name] = float(values.mean())
    if len(values) > 1:
      mean = intervals.mean_interval(values.tolist())
      ends[name], spread[name] = [mean.low, mean.high], mean.sd
      if name != 'gain' and not name.startswith('bias/'):
        ends[name] = [max(mean.low, 0.0), min(mean.high, 1.0)]
  return {
    'metrics': metrics,
    'intervals': ends,
    'interval_kinds': dict.fromkeys(ends, 'student'),
    'confidence': 0.95,
    'sd': spread,
    'n': max(len(values) for values in columns.values()),
  }
