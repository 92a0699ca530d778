"""The page of ``launch.review --serve``: what it shows, and the retraining that it may start."""

import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

from jaxdefect.review import Conflict, Store, Targets, web
from launch import review, review_runs

LOG = 'retraining.log'
# The first of these that a report has is its figure.
_FIGURES = ('auroc', 'auroc/supervised', 'accuracy')


class Retraining:
  """A retraining in a process of its own, so that the page goes on while it runs."""

  def __init__(self, directory: pathlib.Path):
    self._directory, self._lock = directory, threading.Lock()
    self._child: subprocess.Popen | None = None

  def start(self, reviewer: str) -> None:
    """Starts one; raises ``Conflict`` where one runs."""
    with self._lock:
      if self._child is not None and self._child.poll() is None:
        raise Conflict('A retraining is running already.')
      # In a wheel the launchers lie inside the package, where -m would not find them by name.
      command = [sys.executable, '-m', 'jaxdefect', 'review', f'--workdir={self._directory}']
      with open(self._directory / 'review' / LOG, 'w', encoding='utf-8') as log:
        self._child = subprocess.Popen(
          [*command, '--retrain', '--noprogress', f'--reviewer={reviewer}'],
          stdout=log,
          stderr=subprocess.STDOUT,
          env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        )

  def job(self) -> dict[str, Any]:
    """What it is at."""
    if self._child is None:
      return {'state': 'none', 'said': ''}
    code = self._child.poll()
    path = self._directory / 'review' / LOG
    lines = path.read_text(encoding='utf-8').strip().splitlines() if path.exists() else []
    told = [line for line in lines if line.startswith(('promoted', 'not promoted', 'error:'))]
    state = 'running' if code is None else 'failed' if code else 'done'
    return {'state': state, 'said': (told or lines or [''])[-1]}

  def stop(self) -> None:
    """Ends it; the same command goes on where it was."""
    if self._child is not None and self._child.poll() is None:
      self._child.kill()
      self._child.wait()


def line(directory: pathlib.Path, targets: Targets, job: Retraining) -> web.Line:
  """What the page shows of the review of a run."""
  path = directory / 'review' / review.FILE
  remembered: dict[tuple[int, int], dict[str, Any]] = {}

  def gauges() -> dict[str, Any]:
    with Store(path) as store:
      model, _ = review_runs.live(store, directory)
      # Predicting takes seconds; it is the same as long as model and queue are.
      key = model, len(store.anomalies(model))
      if key not in remembered:
        remembered.clear()
        remembered[key] = _gauges(directory, store, targets)
      return remembered[key]

  def classes() -> tuple[str, ...]:
    with Store(path) as store:
      _, run = review_runs.live(store, directory)
    return _classes(directory, run)

  def models() -> list[dict[str, Any]]:
    with Store(path) as store:
      return [_model(directory, row) for row in store.models()]

  return web.Line(
    title=f'Review of {directory.name}',
    store=path,
    overlays=directory / 'review' / 'overlays',
    classes=classes,
    gauges=gauges,
    models=models,
    retrain=job.start,
    job=job.job,
  )


def _classes(directory: pathlib.Path, run: pathlib.Path) -> tuple[str, ...]:
  if run not in _KNOWN_CLASSES:
    _KNOWN_CLASSES[run] = review_runs.read(directory, run).fitted.classes
  return _KNOWN_CLASSES[run]


_KNOWN_CLASSES: dict[pathlib.Path, tuple[str, ...]] = {}


def _gauges(directory: pathlib.Path, store: Store, targets: Targets) -> dict[str, Any]:
  answer = review.readiness(directory, store, targets)
  return {
    **answer._asdict(),
    'gauges': [
      {
        'name': 'defects found, at least',
        'value': answer.detection,
        'target': targets.detection_rate,
        'sign': 'more than',
      },
      {
        'name': 'good parts rejected, at most',
        'value': answer.false_rejects,
        'target': targets.false_reject_rate,
        'sign': 'less than',
      },
    ],
  }


def _model(directory: pathlib.Path, row: dict[str, Any]) -> dict[str, Any]:
  """A row of the comparison: the model's figure on the first run's test part."""
  path = review_runs.place(directory, row['directory']) / 'report.json'
  report = json.loads(path.read_text()) if path.exists() else {'metrics': {}}
  name = next((one for one in _FIGURES if one in report['metrics']), None)
  return {
    **{key: row[key] for key in ('id', 'state', 'note')},
    'verdicts': report.get('split', {}).get('verdicts', 0),
    'metric_name': name,
    'metric': None if name is None else report['metrics'][name],
    'interval': report.get('intervals', {}).get(name),
  }


def serve(directory: pathlib.Path, *, targets: Targets, host: str, port: int) -> None:
  """Serves the page until it is interrupted."""
  import uvicorn

  job = Retraining(directory)
  app = web.make_app(line(directory, targets, job), hosts=(*web.LOOPBACK, host))
  print(f'http://{host}:{port}/  (Ctrl+C ends it)', flush=True)
  try:
    uvicorn.run(app, host=host, port=port, log_level='warning')
  finally:
    job.stop()
