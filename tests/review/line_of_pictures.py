"""A line with some pictures and no model, for the tests of its page.

As a script, ``python -m tests.review.line_of_pictures FOLDER PORT``, it is the server that a test
kills; the folder's line must have been made before.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxdefect.data import decode
from jaxdefect.review import Conflict, Prediction, Store
from jaxdefect.review.web import Line, make_app

CLASSES = ('good', 'bent', 'stained')


class FakeLine:
  """A ``Line`` whose retraining is done at once, and moves the gauge."""

  def __init__(self, folder: pathlib.Path, *, num: int = 12):
    self.path = folder / 'review.sqlite'
    self.retrained = 0
    self.pictures = folder / 'pictures'
    self.line = Line(
      title='Caps',
      store=self.path,
      overlays=folder / 'overlays',
      classes=lambda: CLASSES,
      gauges=self.gauges,
      models=self.models,
      retrain=self.retrain,
      job=lambda: {'state': 'done' if self.retrained else 'none', 'said': 'promoted'},
    )
    if self.pictures.exists():
      return
    self.pictures.mkdir()
    (folder / 'overlays').mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for i in range(num):
      pixels = generator.integers(0, 256, (60, 80, 3), np.uint8)
      path = self.pictures / f'{i:02}.png'
      Image.fromarray(pixels).save(path)
      image = decode.pixel_hash(pixels)
      Image.fromarray(255 - pixels).save(folder / 'overlays' / f'{image}.png')
      rows.append(
        Prediction(
          image, str(path), 'review', 'anomaly', CLASSES[i % 3], 0.3, 0.9, 0.2, 1 - i / 999
        )
      )
    self.images = [row.image for row in rows]
    with Store(self.path) as store:
      store.promote(store.add_model('first', who='anna'), who='anna')
      store.predict(1, rows, who='line')

  def gauges(self) -> dict:
    value = 0.6 + 0.2 * self.retrained
    gauge = {'name': 'found, at least', 'value': value, 'target': 0.95, 'sign': 'more than'}
    return {'verdict': 'not yet', 'reason': 'few are seeded', 'gauges': [gauge]}

  def models(self) -> Sequence[dict]:
    with Store(self.path) as store:
      return [
        {
          **{key: row[key] for key in ('id', 'state', 'note')},
          **{'verdicts': 10 * place, 'metric_name': 'auroc', 'metric': 0.8 + 0.1 * place},
          'interval': [0.7 + 0.1 * place, 0.9 + 0.05 * place],
        }
        for place, row in enumerate(store.models())
      ]

  def retrain(self, reviewer: str) -> None:
    if self.retrained:
      raise Conflict('A retraining is running already.')
    self.retrained += 1
    with Store(self.path) as store:
      store.promote(store.add_model('second', who=reviewer), who=reviewer)


if __name__ == '__main__':
  import uvicorn

  uvicorn.run(
    make_app(FakeLine(pathlib.Path(sys.argv[1])).line),
    host='127.0.0.1',
    port=int(sys.argv[2]),
    log_level='critical',
  )
