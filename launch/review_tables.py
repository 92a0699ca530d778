"""The tables about the review loop: who is approved wrongly, and what verdicts teach (source P)."""

import pathlib
import time
from typing import Any

import numpy as np
import scipy.stats

from jaxdefect.evaluate import confidence_sequence, intervals
from jaxdefect.explain import figures, readiness_figures
from launch import evidence_tables, loop_evidence
from launch.grid import Cell, Column, Table
from launch.versions import versions

LINES, PARTS, TARGET, CONFIDENCE = 1000, 500, 0.95, 0.95
RATES = (0.90, 0.93, 0.95, 0.97, 0.98, 0.99)
OURS, EACH, ONCE = (
  'evidence at all looks',
  'exact bound at every look',
  f'exact bound, once at {PARTS}',
)
FIGURE = 'approved.png'

TABLES: dict[str, Table] = {
  'R1': Table(
    'Is a line approved wrongly? (source P: know when the model may decide alone)',
    f'{LINES:,} simulated lines of {PARTS} seeded defective parts each, with the detection rate in '
    f'the column; asked is a rate of {100 * TARGET:g} % at {100 * CONFIDENCE:g} % confidence. '
    '"Approved": some look at some part says that the rate is larger; at and below '
    f'{100 * TARGET:g} % that is wrong, and promised is at most {100 * (1 - CONFIDENCE):g} % '
    '(`review.assess`, the first row). "Exact bound": Clopper and Pearson, which promises the same '
    'for one look. Brackets: Wilson over the lines. No data and no model are in this.',
    1,
    tuple(
      Cell(row, f'{100 * rate:g} %', '', {}, 'approved', shots='readiness')
      for rate in RATES
      for row in (OURS, EACH, ONCE)
    ),
    metrics=(
      Column('approved', 'approved'),
      Column('parts until then, median', 'median_parts', percent=False),
    ),
    figures=(FIGURE,),
  ),
  'R2': Table(
    'Do verdicts from the front of the queue teach faster? (source P)',
    f'{len(loop_evidence.SEEDS)} seeds. A ridge head on ImageNet features of ResNet-18 knows '
    f'{loop_evidence.START} pictures, half of them defective; {loop_evidence.STEP} more at a time '
    'are judged (by their labels): those that `review.ranking` puts first (low margin and novelty; '
    'there is no anomaly method here), or any. AUROC on the 30 % of the pictures that are set '
    'aside. "Ahead": mean over the whole curve against the other row, paired by seed. "Reached": '
    f'labelled pictures until the mean is what chance has at {loop_evidence.MOST}. Brackets: '
    'Student over the seeds. The claim of the source is that the loop gets there sooner.',
    1,
    tuple(
      Cell(row, data, config, {}, f'auroc/{loop_evidence.MOST}', shots='loop')
      for data, (config, _) in evidence_tables.SETS.items()
      for row in (loop_evidence.QUEUE, loop_evidence.CHANCE)
    ),
    metrics=(
      Column('AUROC, 50 labelled', 'auroc/50'),
      Column('100', 'auroc/100'),
      Column(str(loop_evidence.MOST), f'auroc/{loop_evidence.MOST}'),
      Column('ahead', 'ahead'),
      Column('reached', 'reached', percent=False),
    ),
    figures=('loop.png',),
  ),
}


def simulated(rate: float) -> dict[str, np.ndarray]:
  """Row -> [LINES] parts until each line is approved, -1 where it never is."""
  outcomes = np.random.default_rng(round(1000 * rate)).random((LINES, PARTS)) < rate
  counts, trials = np.cumsum(outcomes, axis=1), np.arange(1, PARTS + 1)
  exact = scipy.stats.beta.ppf(1 - CONFIDENCE, counts, trials - counts + 1) > TARGET
  return {
    OURS: confidence_sequence.first_crossing(outcomes, rate=TARGET, confidence=CONFIDENCE),
    EACH: np.where(exact.any(axis=1), exact.argmax(axis=1) + 1, -1),
    ONCE: np.where(exact[:, -1], PARTS, -1),
  }


def of_cell(row: str, column: str) -> dict[str, Any]:
  """The report of one cell."""
  started = time.monotonic()
  rate = next(one for one in RATES if f'{100 * one:g} %' == column)
  parts = simulated(rate)[row]
  approved = parts > 0
  low, high = intervals.wilson(int(approved.sum()), LINES)
  metrics = {'approved': float(approved.mean())}
  if approved.any():
    metrics['median_parts'] = float(np.median(parts[approved]))
  return {
    'metrics': metrics,
    'intervals': {'approved': [low, high]},
    'interval_kinds': {'approved': 'wilson'},
    'confidence': 0.95,
    'n': LINES,
    'seconds': round(time.monotonic() - started, 1),
    'split': {'kind': 'simulated', 'lines': LINES, 'parts': PARTS, 'rate': rate, 'target': TARGET},
    'config': {},
    'versions': versions(),
  }


def draw(folder: pathlib.Path) -> None:
  """The share of lines that are approved, part by part, for a bad, a just bad and a good line."""
  shown = {rate: simulated(rate) for rate in (0.93, TARGET, 0.98)}
  curves = {
    f'{100 * rate:g} % are found': {
      name: np.array([((p := rows[name]) > 0) & (p <= n) for n in range(1, PARTS + 1)]).mean(axis=1)
      for name in (OURS, EACH)
    }
    for rate, rows in shown.items()
  }
  folder.mkdir(parents=True, exist_ok=True)
  figures.save(
    folder / FIGURE, readiness_figures.approvals(curves, promised=1 - CONFIDENCE, target=TARGET)
  )
