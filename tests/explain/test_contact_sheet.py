"""The contact sheet: every class in its row, the original first, pictures as they are."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxdefect.explain import figures
from jaxdefect.explain.contact_sheet import Row, contact_sheet


def _rows(num=3, views=7, size=(40, 40), channels=3):
  random = np.random.default_rng(0)
  return [
    Row(
      f'class {k}',
      random.integers(0, 256, (*size, channels), dtype=np.uint8),
      random.uniform(0, 255, (views, *size, channels)).astype(np.float32),
      note=f'note {k}',
    )
    for k in range(num)
  ]


def _sheet(figure) -> np.ndarray:
  (axes,) = figure.axes
  (image,) = axes.images
  return np.asarray(image.get_array())


def _texts(figure) -> list[str]:
  return [text.get_text() for text in figure.axes[0].texts]


def test_pictures_stand_in_their_rows_and_columns():
  rows = _rows()
  sheet = _sheet(contact_sheet(rows))
  side = 160  # 40 pixels, four times as large
  for k, row in enumerate(rows):
    top = k * (side + 6)
    found = sheet[top : top + side : 4, :side:4]
    np.testing.assert_array_equal(found, row.original)
    for v, view in enumerate(row.views):
      left = side + 24 + v * (side + 6)
      found = sheet[top : top + side : 4, left : left + side : 4]
      np.testing.assert_array_equal(found, np.rint(view))
  assert (sheet[:, side : side + 24] == 255).all()  # the original stands apart
  assert sheet.shape == (3 * side + 12, 8 * side + 24 + 6 * 6, 3)


def test_classes_and_notes_are_written():
  texts = _texts(contact_sheet(_rows()))
  for k in range(3):
    assert f'class {k}' in texts
    assert f'note {k}' in texts
  assert 'original' in texts
  assert 'random views' in texts


def test_names_are_not_markup_and_long_ones_are_wrapped():
  (row,) = _rows(1)
  figure = contact_sheet([row._replace(name='$a$ rolled in scale of the second strand')])
  (name,) = [text for text in figure.axes[0].texts if text.get_text().startswith('$a$')]
  assert name.get_text().count('\n') == 2
  assert not name.get_parse_math()


@pytest.mark.parametrize(('size', 'tile'), [((20, 40), (80, 160)), ((400, 300), (160, 120))])
def test_pictures_keep_their_proportions(size, tile):
  sheet = _sheet(contact_sheet(_rows(1, size=size)))
  assert sheet.shape == (tile[0], 8 * tile[1] + 24 + 36, 3)


def test_gray_pictures_and_many_classes():
  sheet = _sheet(contact_sheet(_rows(13, views=2, channels=1)))
  assert sheet.shape == (13 * 96 + 12 * 6, 3 * 96 + 24 + 6, 3)
  assert (sheet[..., 0] == sheet[..., 1]).all()


def _written(figure) -> np.ndarray:
  with Image.open(io.BytesIO(figures.to_png(figure))) as opened:
    return np.asarray(opened.convert('RGB'))


def test_file_has_the_pixels_of_the_sheet():
  figure = contact_sheet(_rows(2))
  written, sheet = _written(figure), _sheet(figure)
  wanted = sheet[:40, :40]
  places = [
    (top, left)
    for top in range(60)
    for left in range(200)
    if (written[top : top + 40, left : left + 40] == wanted).mean() > 0.9
  ]
  assert places  # not resampled, and not blurred
  top, left = places[0]
  assert written.shape[0] - top >= sheet.shape[0]
  assert written.shape[1] - left >= sheet.shape[1]


def test_long_names_are_not_cut_off():
  (row,) = _rows(1)
  short, long = (_written(contact_sheet([row._replace(name=name)])) for name in ('W', 'W' * 18))
  assert long.shape[1] - short.shape[1] > 17 * 10
  # A margin of white is left of the first letter.
  assert (long[:, :5] == 255).all()
  assert (long[:, 5:100] < 128).any()


def test_no_row_is_refused():
  with pytest.raises(ValueError, match='rows is empty'):
    contact_sheet([])


def test_headings_stand_above_their_columns():
  figure = contact_sheet(_rows(views=2), headings=('original', 'ours', 'theirs'))
  texts = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
  assert texts['original'] < texts['ours'] < texts['theirs']
