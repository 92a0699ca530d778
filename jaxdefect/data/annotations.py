"""Boxes from Pascal VOC XML.

Coordinates. VOC counts pixels from 1 and names the first and the last pixel inside a box. We give
the box's edges, counted from the image's upper left corner, so that widths and areas are plain
differences and a box around the whole H x W image is (0, 0, W, H):

  ``(xmin, ymin, xmax, ymax) -> (xmin - 1, ymin - 1, xmax, ymax)``
"""

import os
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import numpy as np


class VocAnnotation(NamedTuple):
  """One Pascal VOC file.

  Attributes:
    filename: the image that it names, exactly as written (some files leave out the ending).
    size: (height, width) of the image in pixels.
    boxes: [n, 4] float32, edges xyxy in absolute pixels, 0 at the upper left corner.
    names: [n] the class of each box.
  """

  filename: str
  size: tuple[int, int]
  boxes: np.ndarray
  names: tuple[str, ...]


def read_voc(path: str | os.PathLike[str]) -> VocAnnotation:
  """Reads one Pascal VOC XML file.

  Args:
    path: the file.

  Returns:
    Its image, size and boxes.

  Raises:
    ValueError: one sentence naming the file, when it is no VOC file or a box leaves the image.
  """
  path = pathlib.Path(path)
  try:
    root = ElementTree.parse(path).getroot()
  except ElementTree.ParseError as error:
    raise ValueError(f'The annotation {path} is no XML: {error}.') from error

  def number(node: ElementTree.Element, tag: str) -> float:
    text = node.findtext(tag)
    try:
      return float(text or '')
    except ValueError:
      raise ValueError(f'The annotation {path} has {text!r} for {tag}, not a number.') from None

  height, width = int(number(root, 'size/height')), int(number(root, 'size/width'))
  boxes, names = [], []
  for item in root.iterfind('object'):
    x0, y0, x1, y1 = (number(item, f'bndbox/{tag}') for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
    if not (1 <= x0 <= x1 <= width and 1 <= y0 <= y1 <= height):
      raise ValueError(
        f'The annotation {path} has the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) '
        f'in an image of {width} x {height}.'
      )
    boxes.append((x0 - 1, y0 - 1, x1, y1))
    names.append((item.findtext('name') or '').strip())
  return VocAnnotation(
    filename=(root.findtext('filename') or '').strip(),
    size=(height, width),
    boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
    names=tuple(names),
  )
