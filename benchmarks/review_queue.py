"""A page of a review queue of 100,000 pictures, beside the same page without its index.

    python -m benchmarks.review_queue [--size=100000] [--rounds=50]

The first page, a page from the middle, a verdict, and the first page as SQLite reads it where the
index on the queue's order is missing. Writes ``benchmarks/results/review-queue-<processor>.json``.
"""

import argparse
import pathlib
import tempfile
from typing import Any

from benchmarks import timing
from jaxdefect.review import Prediction, Store

OURS, PLAIN = 'jaxdefect', 'without the index'


def fill(store: Store, size: int) -> None:
  """Queues so many pictures, with priorities in no order."""
  store.promote(store.add_model('run', who='bench'), who='bench')
  store.predict(
    1,
    (
      Prediction(
        f'{i:064x}', f'/line/{i}.png', 'review', '', 'good', 0.5, 0.5, 0.5, i * 7919 % size / size
      )
      for i in range(size)
    ),
    who='bench',
  )  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description='The review queue.')
  parser.add_argument('--size', type=int, default=100_000)
  parser.add_argument('--rounds', type=int, default=50)
  arguments = parser.parse_args()
  cases: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as folder:
    ours, plain = (Store(pathlib.Path(folder) / name) for name in ('ours.sqlite', 'plain.sqlite'))
    for store in (ours, plain):
      fill(store, arguments.size)
    plain._db.execute('DROP INDEX queue_order')
    after = False, 0.5, 'f' * 64
    waiting = iter([one.prediction.image for one in ours.queue(limit=arguments.rounds + 10)])
    for title, contenders in (
      ('first page of 50', {OURS: ours.queue, PLAIN: plain.queue}),
      (
        'a page from the middle',
        {OURS: lambda: ours.queue(after=after), PLAIN: lambda: plain.queue(after=after)},
      ),
      (
        'a verdict, on the disk',
        {OURS: lambda: ours.judge(next(waiting), 'bent', reviewer='bench')},
      ),
    ):
      times = timing.take_turns(contenders, rounds=arguments.rounds)
      ratios = timing.compare(times, ours=OURS)
      timing.show(title, times, ratios)
      cases[title] = {'seconds': times, 'ours_over': ratios}
    ours.close()
    plain.close()
  path = timing.write_results(
    'review-queue', timing.processor(), cases, threads=None, sizes={'queued': arguments.size}
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
