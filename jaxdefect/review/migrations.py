"""The tables of a review store, version by version; what has been released never changes.

Version n is what the first n entries have made, and is kept in ``PRAGMA user_version``.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
  (
    """CREATE TABLE images (
      sum TEXT PRIMARY KEY,
      path TEXT NOT NULL,
      at TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE models (
      id INTEGER PRIMARY KEY,
      directory TEXT NOT NULL UNIQUE,
      state TEXT NOT NULL CHECK (state IN ('candidate', 'live', 'retired', 'refused')),
      at TEXT NOT NULL,
      note TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX one_live_model ON models (state) WHERE state = 'live'",
    """CREATE TABLE promotions (
      id INTEGER PRIMARY KEY,
      model INTEGER NOT NULL REFERENCES models (id),
      before INTEGER REFERENCES models (id),
      at TEXT NOT NULL,
      who TEXT NOT NULL,
      reason TEXT NOT NULL,
      rolled_back INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE predictions (
      image TEXT NOT NULL REFERENCES images (sum),
      model INTEGER NOT NULL REFERENCES models (id),
      verdict TEXT NOT NULL,
      rule TEXT NOT NULL,
      label TEXT NOT NULL,
      margin REAL NOT NULL,
      anomaly REAL,
      novelty REAL NOT NULL,
      priority REAL NOT NULL,
      at TEXT NOT NULL,
      PRIMARY KEY (image, model)
    ) WITHOUT ROWID""",
    """CREATE TABLE queue (
      image TEXT PRIMARY KEY REFERENCES images (sum),
      model INTEGER NOT NULL REFERENCES models (id),
      missed INTEGER NOT NULL,
      priority REAL NOT NULL
    ) WITHOUT ROWID""",
    'CREATE INDEX queue_order ON queue (missed DESC, priority DESC, image DESC)',
    """CREATE TABLE verdicts (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      image TEXT NOT NULL REFERENCES images (sum),
      label TEXT NOT NULL,
      said TEXT NOT NULL,
      model INTEGER NOT NULL REFERENCES models (id),
      reviewer TEXT NOT NULL,
      at TEXT NOT NULL,
      undone INTEGER NOT NULL DEFAULT 0
    )""",
    'CREATE UNIQUE INDEX one_verdict ON verdicts (image) WHERE undone = 0',
    'CREATE INDEX verdicts_of ON verdicts (reviewer, undone, id)',
    """CREATE TABLE audit (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      at TEXT NOT NULL,
      who TEXT NOT NULL,
      what TEXT NOT NULL,
      details TEXT NOT NULL
    )""",
    """CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
      BEGIN SELECT RAISE(ABORT, 'the audit trail only grows'); END""",
    """CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
      BEGIN SELECT RAISE(ABORT, 'the audit trail only grows'); END""",
    """CREATE TRIGGER verdicts_are_kept BEFORE DELETE ON verdicts
      BEGIN SELECT RAISE(ABORT, 'a verdict is undone, not deleted'); END""",
  ),
  # Runs were kept as --workdir was typed, and are named from the folder that holds the review now:
  # the first is that folder itself, and every other one lies in it, under 12 digits. Of two names
  # of one run the second stays.
  (
    """UPDATE OR IGNORE models SET directory = CASE note
      WHEN 'the first' THEN '.' ELSE 'review/runs/' || substr(directory, -12) END""",
  ),
)
