"""Boxes from Pascal VOC XML.

Coordinates. VOC counts pixels from 1 and names the first and the last pixel inside a box. We give
the box's edges, counted from the image's upper left corner, so that widths and areas are plain
differences and a box around the whole H x W image is (0, 0, W, H):

  ``(xmin, ymin, xmax, ymax) -> (xmin - 1, ymin - 1, xmax, ymax)``
"""

import math
import os
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import numpy as np


class VocAnnotation(NamedTuple):
  """One Pascal VOC file.

  Attributes:
    filename: the image that it names, exactly as written (some files leave out the ending).
    size: (height, width) of the image in pixels; None where the file has none or zeros.
    boxes: [n, 4] float64, edges xyxy in absolute pixels, 0 at the upper left corner.
    names: [n] the class of each box.
    difficult: [n] bool, the file's own mark on boxes that are hard to see.
  """

  filename: str
  size: tuple[int, int] | None
  boxes: np.ndarray
  names: tuple[str, ...]
  difficult: np.ndarray


def read_voc(
  path: str | os.PathLike[str], *, first_pixel: int = 1, check: bool = True
) -> VocAnnotation:
  """Reads one Pascal VOC XML file.

  Args:
    path: the file.
    first_pixel: 1 as VOC counts; 0 where a tool writes edges counted from 0, which are taken as
      they are.
    check: whether a box that leaves the image, or has no area, or a missing size, is refused;
      otherwise the boxes come as they are written.

  Returns:
    Its image, size and boxes.

  Raises:
    ValueError: one sentence naming the file, when it is no VOC file or ``check`` fails.
  """
  path = pathlib.Path(path)
  if first_pixel not in (0, 1):
    raise ValueError(f'first_pixel must be 0 or 1, got {first_pixel}.')
  try:
    root = ElementTree.parse(path).getroot()
  except (ElementTree.ParseError, ValueError, LookupError) as error:  # also of unknown encodings
    raise ValueError(f'The annotation {path} is no XML: {error}.') from error
  except OSError as error:
    raise ValueError(f'The annotation {path} cannot be read: {error.strerror}.') from error
  if root.tag != 'annotation':
    raise ValueError(f'The annotation {path} is no VOC file: it begins with <{root.tag}>.')

  def number(node: ElementTree.Element, tag: str) -> float:
    text = node.findtext(tag)
    try:
      value = float(text or '')
    except ValueError:
      value = math.nan
    if not math.isfinite(value):
      raise ValueError(f'The annotation {path} has {text!r} for {tag}, not a number.')
    return value

  size = None
  if check or root.find('size') is not None:
    height, width = number(root, 'size/height'), number(root, 'size/width')
    size = (int(height), int(width)) if min(height, width) >= 1 else None
  boxes, names, difficult = [], [], []
  for item in root.iterfind('object'):
    x0, y0, x1, y1 = (number(item, f'bndbox/{tag}') for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
    edges = (x0 - first_pixel, y0 - first_pixel, x1, y1)
    height, width = size or (0, 0)
    if check and not (0 <= edges[0] < x1 <= width and 0 <= edges[1] < y1 <= height):
      raise ValueError(
        f'The annotation {path} has the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) '
        f'in an image of {width} x {height}.'
      )
    boxes.append(edges)
    names.append((item.findtext('name') or '').strip())
    difficult.append((item.findtext('difficult') or '0').strip() == '1')
  return VocAnnotation(
    filename=(root.findtext('filename') or '').strip(),
    size=size,
    boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
    names=tuple(names),
    difficult=np.asarray(difficult, bool),
  )
