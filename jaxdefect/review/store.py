"""What a line has seen, what models said of it, and what people decided: one SQLite file.

A picture is known by the sum of its pixels, wherever its file lies. What awaits a verdict is a row
of ``queue``; a verdict and the row's removal are one transaction, so that a picture has exactly one
of them, and of two reviewers one is told that the other was first. Nothing is ever deleted: a
verdict is undone by a further one, and ``audit`` only grows (triggers see to it).

The file is in WAL mode with full synchronisation: what a method has returned from survives the kill
of the process and the loss of power. Readers never wait for a writer.
"""

import contextlib
import datetime
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from jaxdefect.review.migrations import MIGRATIONS
from jaxdefect.review.records import Conflict, Prediction, Queued, Verdict

_BUSY_SECONDS = 30.0


class Store:
  """The review of one line.

  Args:
    path: the file; made where it is missing, migrated where it is older.

  Raises:
    ValueError: the file is no store, or of a newer version.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
    self._db.row_factory = sqlite3.Row
    try:
      self._db.execute('PRAGMA journal_mode = WAL')
      self._db.execute('PRAGMA synchronous = FULL')
      self._db.execute('PRAGMA foreign_keys = ON')
      self._migrate()
    except sqlite3.DatabaseError as error:
      self._db.close()
      raise ValueError(f'The file {self._path} is no review store: {error}.') from error

  def close(self) -> None:
    """Ends the connection; the file is whole at any time, also without this."""
    self._db.close()

  def __enter__(self) -> 'Store':
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def _migrate(self) -> None:
    with self._writing():
      (version,) = self._db.execute('PRAGMA user_version').fetchone()
      if version > len(MIGRATIONS):
        raise ValueError(
          f'The store {self._path} is of version {version}; this jaxdefect knows {len(MIGRATIONS)}.'
        )
      for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        for statement in statements:
          self._db.execute(statement)
        self._db.execute(f'PRAGMA user_version = {number}')

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """One transaction, which takes the write lock at once."""
    self._db.execute('BEGIN IMMEDIATE')
    try:
      yield
    except BaseException:
      if self._db.in_transaction:  # a full disk has ended it already
        self._db.execute('ROLLBACK')
      raise
    self._db.execute('COMMIT')

  def _note(self, who: str, what: str, **details: Any) -> None:
    self._db.execute(
      'INSERT INTO audit (at, who, what, details) VALUES (?, ?, ?, ?)',
      (_now(), who, what, json.dumps(details, ensure_ascii=False, sort_keys=True)),
    )

  # Models.

  def add_model(self, directory: str | os.PathLike[str], *, who: str, note: str = '') -> int:
    """Makes a run known, as a candidate; one that is known keeps its number.

    Its folder is named from the one that holds the review, so that both can be moved together.
    """
    name = os.fspath(directory)
    with self._writing():
      row = self._db.execute('SELECT id FROM models WHERE directory = ?', (name,)).fetchone()
      if row is not None:
        return row['id']
      number = self._db.execute(
        "INSERT INTO models (directory, state, at, note) VALUES (?, 'candidate', ?, ?)",
        (name, _now(), note),
      ).lastrowid
      assert number is not None
      self._note(who, 'model added', model=number, directory=name)
      return number

  def promote(self, model: int, *, who: str, reason: str = '') -> None:
    """Makes a model the one that predicts; the one before it is retired. All or nothing."""
    with self._writing():
      if self._db.execute('SELECT 1 FROM models WHERE id = ?', (model,)).fetchone() is None:
        raise Conflict(f'There is no model {model}.')
      before = self._db.execute("SELECT id FROM models WHERE state = 'live'").fetchone()
      if before is not None and before['id'] == model:
        return
      self._db.execute("UPDATE models SET state = 'retired' WHERE state = 'live'")
      self._db.execute("UPDATE models SET state = 'live' WHERE id = ?", (model,))
      self._db.execute(
        'INSERT INTO promotions (model, before, at, who, reason) VALUES (?, ?, ?, ?, ?)',
        (model, None if before is None else before['id'], _now(), who, reason),
      )
      self._note(who, 'model promoted', model=model, reason=reason)

  def refuse(self, model: int, *, who: str, reason: str) -> None:
    """Writes down that a candidate was not promoted, and why."""
    with self._writing():
      changed = self._db.execute(
        "UPDATE models SET state = 'refused', note = ? WHERE id = ? AND state = 'candidate'",
        (reason, model),
      ).rowcount
      if changed:
        self._note(who, 'model refused', model=model, reason=reason)

  def roll_back(self, *, who: str) -> int:
    """Makes the model live again that was live before the last promotion; returns its number."""
    with self._writing():
      last = self._db.execute(
        'SELECT id, model, before FROM promotions WHERE rolled_back = 0 ORDER BY id DESC LIMIT 1'
      ).fetchone()
      if last is None or last['before'] is None:
        raise Conflict('There is no earlier model to go back to.')
      self._db.execute("UPDATE models SET state = 'retired' WHERE state = 'live'")
      self._db.execute("UPDATE models SET state = 'live' WHERE id = ?", (last['before'],))
      self._db.execute('UPDATE promotions SET rolled_back = 1 WHERE id = ?', (last['id'],))
      self._note(who, 'rolled back', model=last['before'], instead_of=last['model'])
      return last['before']

  def live(self) -> tuple[int, str] | None:
    """Number and folder, as it was added, of the model that predicts; None without any."""
    row = self._db.execute("SELECT id, directory FROM models WHERE state = 'live'").fetchone()
    return None if row is None else (row['id'], row['directory'])

  def models(self) -> list[dict[str, Any]]:
    """Every model with ``id``, ``directory``, ``state``, ``at`` and ``note``, oldest first."""
    return [dict(row) for row in self._db.execute('SELECT * FROM models ORDER BY id')]

  # Pictures and predictions.

  def predict(
    self, model: int, predictions: Iterable[Prediction], *, who: str, missed: bool = False
  ) -> int:
    """Keeps what a model says of pictures, and queues those that have no verdict.

    Args:
      model: its number.
      predictions: of pictures; one that is queued already gets the new priority.
      who: for the audit trail.
      missed: whether somebody knows that a defect was passed in them; they come first.

    Returns:
      How many await a verdict now that did not before.
    """
    fresh = 0
    with self._writing():
      for one in predictions:
        self._db.execute(
          'INSERT INTO images (sum, path, at) VALUES (?, ?, ?) '
          'ON CONFLICT (sum) DO UPDATE SET path = excluded.path',
          (one.image, one.path, _now()),
        )
        self._db.execute(
          'INSERT OR REPLACE INTO predictions (image, model, verdict, rule, label, margin, '
          'anomaly, novelty, priority, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
          (
            *(one.image, model, one.verdict, one.rule, one.label, one.margin, one.anomaly),
            *(one.novelty, one.priority, _now()),
          ),
        )
        if self._standing(one.image) is None:
          known = self._db.execute('SELECT 1 FROM queue WHERE image = ?', (one.image,)).fetchone()
          fresh += known is None
          self._db.execute(
            'INSERT INTO queue (image, model, missed, priority) VALUES (?, ?, ?, ?) '
            'ON CONFLICT (image) DO UPDATE SET model = excluded.model, '
            'missed = max(missed, excluded.missed), priority = excluded.priority',
            (one.image, model, int(missed), one.priority),
          )
      self._note(who, 'pictures scored', model=model, queued=fresh, missed=missed)
    return fresh

  def queue(self, *, limit: int = 50, after: tuple[bool, float, str] | None = None) -> list[Queued]:
    """What awaits a verdict: confirmed misses first, then by falling priority.

    Args:
      limit: at most so many.
      after: ``(missed, priority, image)`` of the last one of the page before; None is the first
        page.

    Returns:
      The page, read off an index without looking at the rest.
    """
    rows = self._db.execute(*_page(limit, after))
    return [Queued(_prediction(row), bool(row['missed'])) for row in rows]

  def queue_plan(self, *, after: tuple[bool, float, str] | None = None) -> list[str]:
    """How SQLite reads a page of the queue, for those who want to know that it does not scan."""
    statement, values = _page(1, after)
    rows = self._db.execute(f'EXPLAIN QUERY PLAN {statement}', values)
    return [row['detail'] for row in rows]

  def waiting(self) -> int:
    """How many pictures await a verdict."""
    return self._db.execute('SELECT count(*) FROM queue').fetchone()[0]

  def model_of(self, image: str) -> int | None:
    """Number of the model by which a picture waits in the queue; None where it does not wait."""
    row = self._db.execute('SELECT model FROM queue WHERE image = ?', (image,)).fetchone()
    return None if row is None else row['model']

  def image(self, image: str) -> Prediction | None:
    """The last prediction of a picture; None where there is no such picture."""
    row = self._db.execute(
      'SELECT images.path, predictions.* FROM predictions '
      'JOIN images ON images.sum = predictions.image WHERE image = ? ORDER BY model DESC LIMIT 1',
      (image,),
    ).fetchone()
    return None if row is None else _prediction(row)

  def anomalies(self, model: int) -> list[float]:
    """Anomalies of the pictures that a model has scored, in their order; none without them."""
    rows = self._db.execute(
      'SELECT anomaly FROM predictions WHERE model = ? AND anomaly IS NOT NULL ORDER BY at, image',
      (model,),
    )
    return [row['anomaly'] for row in rows]

  # Verdicts.

  def judge(self, image: str, label: str, *, reviewer: str) -> int:
    """A person's verdict; the picture leaves the queue.

    Args:
      image: sum of the pixels.
      label: class that it is of.
      reviewer: who says so.

    Returns:
      Number of the verdict.

    Raises:
      Conflict: it has a verdict already, or is not known.
    """
    with self._writing():
      row = self._db.execute('SELECT model, missed FROM queue WHERE image = ?', (image,)).fetchone()
      if row is None:
        standing = self._standing(image)
        if standing is None:
          raise Conflict('There is no such picture in the queue.')
        raise Conflict(f'{standing["reviewer"]} has judged it already: {standing["label"]}.')
      said = self._db.execute(
        'SELECT label FROM predictions WHERE image = ? AND model = ?', (image, row['model'])
      ).fetchone()['label']
      number = self._db.execute(
        'INSERT INTO verdicts (image, label, said, model, reviewer, at) VALUES (?, ?, ?, ?, ?, ?)',
        (image, label, said, row['model'], reviewer, _now()),
      ).lastrowid
      assert number is not None
      self._db.execute('DELETE FROM queue WHERE image = ?', (image,))
      how = {'label': label, 'said': said, 'missed': bool(row['missed'])}
      self._note(reviewer, 'judged', image=image, verdict=number, **how)
      return number

  def undo(self, *, reviewer: str) -> Verdict:
    """Takes back the reviewer's last verdict that stands; the picture is queued as it was."""
    with self._writing():
      row = self._db.execute(
        'SELECT id FROM verdicts WHERE reviewer = ? AND undone = 0 ORDER BY id DESC LIMIT 1',
        (reviewer,),
      ).fetchone()
      if row is None:
        raise Conflict(f'{reviewer} has no verdict to take back.')
      self._db.execute('UPDATE verdicts SET undone = 1 WHERE id = ?', (row['id'],))
      one = self._verdict(row['id'])
      last = self._db.execute(
        'SELECT model, priority FROM predictions WHERE image = ? ORDER BY model DESC LIMIT 1',
        (one.image,),
      ).fetchone()
      self._db.execute(
        'INSERT INTO queue (image, model, missed, priority) VALUES (?, ?, ?, ?)',
        (one.image, last['model'], self._was_missed(row['id']), last['priority']),
      )
      self._note(reviewer, 'undone', verdict=row['id'], image=one.image)
      return one

  def _was_missed(self, verdict: int) -> bool:
    """Whether the picture of a verdict was known as a miss; the queue forgets it, the audit not."""
    rows = self._db.execute("SELECT details FROM audit WHERE what = 'judged' ORDER BY id DESC")
    judged = (json.loads(row['details']) for row in rows)
    return next((one.get('missed', False) for one in judged if one['verdict'] == verdict), False)

  def verdicts(self, *, standing: bool = True) -> list[Verdict]:
    """All verdicts, oldest first; with ``standing`` without those that were taken back."""
    rows = self._db.execute(
      _VERDICTS.format(where='WHERE verdicts.undone = 0' if standing else '') + ' ORDER BY id'
    )
    return [_as_verdict(row) for row in rows]

  def _verdict(self, number: int) -> Verdict:
    row = self._db.execute(_VERDICTS.format(where='WHERE verdicts.id = ?'), (number,)).fetchone()
    return _as_verdict(row)

  def _standing(self, image: str) -> sqlite3.Row | None:
    return self._db.execute(
      'SELECT label, reviewer FROM verdicts WHERE image = ? AND undone = 0', (image,)
    ).fetchone()

  def audit(self) -> list[dict[str, Any]]:
    """Who did what and when, oldest first."""
    rows = self._db.execute('SELECT at, who, what, details FROM audit ORDER BY id')
    return [{**dict(row), 'details': json.loads(row['details'])} for row in rows]


_QUEUE = (
  'SELECT queue.missed, images.path, predictions.* FROM queue '
  'JOIN images ON images.sum = queue.image '
  'JOIN predictions ON predictions.image = queue.image AND predictions.model = queue.model '
  '{where} ORDER BY queue.missed DESC, queue.priority DESC, queue.image DESC LIMIT ?'
)
_VERDICTS = (
  'SELECT verdicts.id, verdicts.image, images.path, verdicts.label, verdicts.said, '
  'verdicts.reviewer, verdicts.at, verdicts.undone FROM verdicts '
  'JOIN images ON images.sum = verdicts.image {where}'
)


def _page(limit: int, after: tuple[bool, float, str] | None) -> tuple[str, tuple[Any, ...]]:
  """The statement of a page of the queue, and its values; a row value is one range of the index."""
  if after is None:
    return _QUEUE.format(where=''), (limit,)
  where = 'WHERE (queue.missed, queue.priority, queue.image) < (?, ?, ?)'
  return _QUEUE.format(where=where), (int(after[0]), after[1], after[2], limit)


def _prediction(row: sqlite3.Row) -> Prediction:
  return Prediction(*(row[name] for name in Prediction._fields))


def _as_verdict(row: sqlite3.Row) -> Verdict:
  return Verdict(*tuple(row)[:-1], undone=bool(row['undone']))


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='milliseconds')
