"""Detections drawn into the picture, with the true boxes beside them.

Shape legend: D detections, M true boxes, H x W pixels.

Boxes are edges (x0, y0, x1, y1) in pixels of the picture as it was read, 0 at its corner. True
boxes are white and dashed (red and white where one is highlighted), detections solid in the colour
of their class, each with its name.
"""

import colorsys
import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageColor, ImageDraw, ImageFont

from jaxdefect.contracts import Detections
from jaxdefect.explain import figures, overlays

Color = tuple[int, int, int]
Pixels = tuple[int, int, int, int]

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (214, 20, 40)
# Okabe and Ito's colours that stand out on gray parts, the brightest first.
_FIRST = ('#E69F00', '#56B4E9', '#009E73', '#D55E00', '#CC79A7', '#F0E442', '#0072B2')


class Tag(NamedTuple):
  """A line of text at a box."""

  text: str
  box: tuple[float, float, float, float]
  color: Color
  below: bool


def class_colors(count: int) -> list[Color]:
  """One colour per class, the same in every picture; from the eighth on by the golden angle.

  >>> class_colors(1)
  [(230, 159, 0)]
  """
  colors = [ImageColor.getrgb(code)[:3] for code in _FIRST[:count]]
  for place in range(len(_FIRST), count):
    hue = (0.618034 * place) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.62, 0.85)
    colors.append((round(255 * red), round(255 * green), round(255 * blue)))
  return [(int(r), int(g), int(b)) for r, g, b in colors]


def in_picture(
  predictions: Detections, row: int, *, scale: float = 1.0, min_score: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The detections of one image, ready for ``draw``.

  Args:
    predictions: [N, D, ...] in pixels of the network's input.
    row: of the image.
    scale: ``batch['scale']`` of the image, network pixels per pixel of the picture.
    min_score: weaker detections are left out.

  Returns:
    Boxes [d, 4] in pixels of the picture, labels [d] and scores [d], without padding.
  """
  scores = np.asarray(predictions.scores[row])
  kept = np.asarray(predictions.valid[row], bool) & (scores >= min_score)
  boxes = np.asarray(predictions.boxes[row], np.float64)[kept] / scale
  return boxes, np.asarray(predictions.labels[row])[kept], scores[kept]


def window_around(
  box: Sequence[float], size: tuple[int, int], *, context: float = 2.5, smallest: int = 224
) -> tuple[int, int, int, int]:
  """A square window around a box that shows it in its surroundings.

  Args:
    box: edges (x0, y0, x1, y1) in pixels.
    size: (H, W) of the picture.
    context: side of the window, in longest sides of the box.
    smallest: least side of the window, in pixels.

  Returns:
    Edges (x0, y0, x1, y1) in whole pixels, inside the picture.

  >>> window_around((50, 50, 60, 60), (640, 640), smallest=100)
  (5, 5, 105, 105)
  """
  x0, y0, x1, y1 = box
  side = round(max(context * max(x1 - x0, y1 - y0), smallest))
  height, width = (min(side, limit) for limit in size)
  left = min(max(round((x0 + x1 - width) / 2), 0), size[1] - width)
  top = min(max(round((y0 + y1 - height) / 2), 0), size[0] - height)
  return left, top, left + width, top + height


def draw(
  image: np.ndarray,
  boxes: np.ndarray,
  labels: np.ndarray,
  scores: np.ndarray,
  classes: Sequence[str],
  *,
  truth: tuple[np.ndarray, np.ndarray] | None = None,
  highlight: tuple[str, int] | None = None,
  window: tuple[int, int, int, int] | None = None,
  min_side: int = 480,
) -> np.ndarray:
  """Draws detections, and true boxes where they are known.

  Small pictures are enlarged first, so that lines and letters do not cover the defect.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255.
    boxes: [D, 4] edges in pixels of ``image``.
    labels: [D] integers that count in ``classes``.
    scores: [D] in 0..1, printed beside the class.
    classes: K names.
    truth: true boxes ([M, 4] edges, [M] labels).
    highlight: ``('truth', m)`` or ``('detection', d)``: that box gets a thick line, the others thin
      ones; true boxes are named only if they are highlighted or if nothing is.
    window: the part to draw, edges (x0, y0, x1, y1) in whole pixels; None draws all of it.
    min_side: the longer side of the drawing is at least so many pixels.

  Returns:
    [h,w,3] uint8.

  Raises:
    ValueError: if a label is no class, or ``window`` leaves the picture.
  """
  picture = overlays.as_rgb(image)
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  true, true_labels = truth if truth is not None else (np.zeros((0, 4)), np.zeros(0, int))
  true = np.asarray(true, np.float64).reshape(-1, 4)
  labels, scores, true_labels = (np.asarray(one) for one in (labels, scores, true_labels))
  chex.assert_shape([labels, scores], (len(boxes),))
  chex.assert_shape(true_labels, (len(true),))
  for label in (*labels, *true_labels):
    if not 0 <= label < len(classes):
      raise ValueError(f'labels holds {label}; 0 to {len(classes) - 1} are allowed.')
  height, width = picture.shape[:2]
  x0, y0, x1, y1 = window or (0, 0, width, height)
  if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
    raise ValueError(f'window is {window} in a picture of {width} x {height} pixels.')

  zoom = max(1.0, min_side / max(x1 - x0, y1 - y0))
  size = (round((x1 - x0) * zoom), round((y1 - y0) * zoom))
  canvas = Image.fromarray(np.ascontiguousarray(picture[y0:y1, x0:x1]))
  canvas = canvas.resize(size, Image.Resampling.BICUBIC)
  pen = ImageDraw.Draw(canvas)
  unit = (max(size) / 480) ** 0.5  # widths and letters grow slower than the drawing
  corner = np.array([x0, y0, x0, y0])
  boxes, true = ((one - corner) * zoom for one in (boxes, true))

  tags = []
  for m in sorted(range(len(true)), key=lambda m: highlight == ('truth', m)):
    box, strong = true[m].tolist(), highlight == ('truth', m)
    if _outside(box, size):
      continue
    line = round((3 if strong else 1.5) * unit)
    _dashed(pen, box, size, RED if strong else BLACK, width=line, unit=unit)
    if strong or highlight is None:
      tags.append(Tag(classes[int(true_labels[m])], box, RED if strong else WHITE, True))
  colors = class_colors(len(classes))
  # The best lies on top, and the highlighted one above all.
  ranked = np.argsort(scores, kind='stable').tolist()
  for d in sorted(ranked, key=lambda d: highlight == ('detection', d)):
    box, label = boxes[d].tolist(), int(labels[d])
    color, strong = colors[label], highlight == ('detection', d)
    if _outside(box, size):
      continue
    _solid(pen, box, size, color, width=round((3.5 if strong else 1.8) * unit))
    tags.append(Tag(f'{classes[label]} {scores[d]:.2f}', box, color, False))
  # The most important tag chooses its place first: the highlighted box's, then by score.
  tags.reverse()
  if highlight is not None:
    kind, place = highlight
    marked = (true if kind == 'truth' else boxes)[place].tolist()
    tags.sort(key=lambda tag: (tag.box != marked, tag.below != (kind == 'truth')))
  _write(pen, tags, size, unit)
  return np.asarray(canvas)


def _outside(box: list[float], size: tuple[int, int]) -> bool:
  return box[2] <= 0 or box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1]


def _pixels(box: list[float], size: tuple[int, int]) -> Pixels:
  """Edges -> first and last pixel inside, clipped to the drawing."""
  x0, y0 = (min(max(round(edge), 0), side - 1) for edge, side in zip(box[:2], size))
  x1, y1 = (min(max(round(edge) - 1, 0), side - 1) for edge, side in zip(box[2:], size))
  return x0, y0, max(x0, x1), max(y0, y1)


def _solid(pen, box, size, color: Color, *, width: int) -> None:
  x0, y0, x1, y1 = _pixels(box, size)
  pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=BLACK, width=max(width, 1) + 2)
  pen.rectangle((x0, y0, x1, y1), outline=color, width=max(width, 1))


def _dashed(pen, box, size, color: Color, *, width: int, unit: float) -> None:
  """White dashes on a dark line, which can be seen on any part."""
  x0, y0, x1, y1 = _pixels(box, size)
  width = max(width, 1)
  dash = max(round(min(7 * unit, (x1 - x0) / 7, (y1 - y0) / 7)), 2)
  pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=color, width=width + 2)
  for start in range(x0, x1 + 1, 2 * dash):
    end = min(start + dash, x1)
    pen.rectangle((start, y0, end, y0 + width - 1), fill=WHITE)
    pen.rectangle((start, y1 - width + 1, end, y1), fill=WHITE)
  for start in range(y0, y1 + 1, 2 * dash):
    end = min(start + dash, y1)
    pen.rectangle((x0, start, x0 + width - 1, end), fill=WHITE)
    pen.rectangle((x1 - width + 1, start, x1, end), fill=WHITE)


def _write(pen, tags: Sequence[Tag], size: tuple[int, int], unit: float) -> None:
  """Places every tag at its box, where it hides no other tag and no small box, if it can."""
  pad = round(3 * unit)
  small = [_pixels(list(tag.box), size) for tag in tags]
  taken: list[Pixels] = []
  for tag in tags:
    font = _font(tag.text, max(round(16 * unit), 9))
    left, _, right, _ = (round(edge) for edge in font.getbbox(tag.text))
    _, top, _, bottom = (round(edge) for edge in font.getbbox('Ag'))  # tags of one height
    wide, tall = right - left + 2 * pad, bottom - top + 2 * pad
    x0, y0, x1, y1 = _pixels(list(tag.box), size)
    above = [(x0, y0 - tall - 1), (x1 - wide + 1, y0 - tall - 1)]
    below = [(x0, y1 + 2), (x1 - wide + 1, y1 + 2)]
    first, second = (below, above) if tag.below else (above, below)
    beside = [
      (x1 + 2, y0),
      (x0 - wide - 1, y0),
      (x1 + 2, y1 - tall + 1),
      (x0 - wide - 1, y1 - tall + 1),
    ]
    within = [(x0, y1 - tall + 1), (x0, y0)] if tag.below else [(x0, y0), (x0, y1 - tall + 1)]
    best, least = (0, 0, wide, tall), float('inf')
    # A large box has room for its name inside; a small one would be hidden by it.
    large = (x1 - x0) * (y1 - y0) > 4 * wide * tall
    for x, y in first + within + second + beside if large else first + second + beside + within:
      x = max(min(x, size[0] - wide), 0)
      room = (x, y, x + wide, y + tall)
      hidden = sum(10 * _shared(room, other) for other in taken)
      hidden += sum(_shared(room, box) for box in small if _area(box) < 4 * wide * tall)
      if 0 <= y <= size[1] - tall and hidden < least:
        best, least = room, hidden
    taken.append(best)
    edge = tag.color if tag.color != WHITE else BLACK
    pen.rectangle((best[0], best[1], best[2] - 1, best[3] - 1), fill=tag.color, outline=edge)
    pen.text((best[0] + pad - left, best[1] + pad - top), tag.text, fill=_ink(tag.color), font=font)


def _shared(a: Pixels, b: Pixels) -> int:
  width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)


def _area(box: Pixels) -> int:
  return (box[2] - box[0]) * (box[3] - box[1])


def _ink(color: Color) -> Color:
  """Black or white, whichever is easier to read on the colour."""
  return BLACK if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110 else WHITE


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
  """The first installed font that has every letter, as in the figures."""
  paths = [
    font_manager.findfont(font_manager.FontProperties(family=[name])) for name in figures.fonts()
  ]
  letters = set(map(ord, text))
  return _opened(next((path for path in paths if letters <= _letters(path)), paths[0]), size)


@functools.lru_cache(maxsize=32)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=8)
def _letters(path: str) -> frozenset[int]:
  return frozenset(font_manager.get_font(path).get_charmap())
