"""Does the queue's order teach faster than chance? Verdicts are the labels of real data.

A head that knows 30 pictures is given ten more at a time: those that the queue puts first, or any.
"""

import pathlib
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxdefect.evaluate import delong, intervals, ridge_head
from jaxdefect.explain import figures, loop_figures
from jaxdefect.review import ranking
from launch import evidence, evidence_tables
from launch.evidence import Problem
from launch.evidence_tables import Setting
from launch.versions import versions

START, STEP, MOST, TESTED = 30, 10, 200, 0.3
SEEDS = range(5)
QUEUE, CHANCE = 'the front of the queue', 'at random'
COUNTS = tuple(range(START, MOST + 1, STEP))


def curve(problem: Problem, setting: Setting, seed: int, *, order: str) -> np.ndarray:
  """AUROC on pictures that are never judged, after 30, 40, ... 200 verdicts.

  Args:
    problem: all pictures as features.
    setting: of the problem.
    seed: of the test part, the first pictures, and chance.
    order: ``QUEUE`` or ``CHANCE``.

  Returns:
    [len(COUNTS)].
  """
  marks, everything = problem.positive, np.arange(len(problem.names))
  counts = [round(TESTED * int(side.sum())) for side in (~marks, marks)]
  test = evidence.draw(problem, (counts[0], counts[1]), seed, everything)
  pool = np.setdiff1d(everything, test)
  known = evidence.draw(problem, (START // 2, START // 2), 1000 + seed, pool)
  generator = np.random.default_rng(seed)
  found = []
  while True:
    x = problem.features[known]
    head = ridge_head.fit(x, marks[known], penalty=setting.strength * ridge_head.spread(x))
    found.append(delong.auroc(ridge_head.scores(head, problem.features[test]), marks[test]).value)
    if len(found) == len(COUNTS):
      return np.array(found)
    left = np.setdiff1d(pool, known)
    if order == QUEUE:
      margin = np.minimum(np.abs(ridge_head.scores(head, problem.features[left])), 1)
      priority = ranking.priority(margin, ranking.novelty(problem.features[left], x))
      chosen = left[np.argsort(-priority, kind='stable')[:STEP]]
    else:
      chosen = generator.choice(left, STEP, replace=False)
    known = np.sort(np.concatenate([known, chosen]))


def of_cell(row: str, column: str, config: ConfigDict, directory: pathlib.Path) -> dict[str, Any]:
  """The report of one cell; ``n`` counts the seeds."""
  started = time.monotonic()
  setting = evidence_tables.SETS[column][1]
  problem = evidence.load(config, setting, directory)
  curves = {
    order: np.stack([curve(problem, setting, seed, order=order) for seed in SEEDS])
    for order in (QUEUE, CHANCE)
  }
  own = curves[row]
  level = curves[CHANCE][:, -1].mean()
  reached = own.mean(axis=0) >= level
  metrics, ends = {}, {}
  for count in (50, 100, MOST):
    mean = intervals.mean_interval(own[:, COUNTS.index(count)].tolist())
    metrics[f'auroc/{count}'], ends[f'auroc/{count}'] = mean.mean, [mean.low, mean.high]
  ahead = (curves[QUEUE] - curves[CHANCE]).mean(axis=1)
  mean = intervals.mean_interval((ahead if row == QUEUE else -ahead).tolist())
  metrics['ahead'], ends['ahead'] = mean.mean, [mean.low, mean.high]
  if reached.any():
    metrics['reached'] = float(COUNTS[int(reached.argmax())])
  return {
    'metrics': metrics,
    'intervals': ends,
    'interval_kinds': dict.fromkeys(ends, 'student'),
    'confidence': 0.95,
    'n': len(SEEDS),
    'curve': {'counts': list(COUNTS), 'auroc': own.round(5).tolist()},
    'split': {'kind': 'loop', 'seeds': len(SEEDS), 'tested': TESTED, **setting._asdict()},
    'config': config.to_dict(),
    'seconds': round(time.monotonic() - started, 1),
    'versions': versions(),
  }


def draw(folder: pathlib.Path, name: str, reports: dict[str, dict[str, dict]]) -> None:
  """The curves of a table with bands over the seeds, from its reports."""
  shown = {
    data: {row: np.array(report['curve']['auroc']) for row, report in rows.items()}
    for data, rows in reports.items()
  }
  figures.save(folder / name, loop_figures.curves(shown, counts=COUNTS))
