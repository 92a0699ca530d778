"""Drawings hold every box where it belongs, at any size and in any script."""

import numpy as np
import pytest
from PIL import ImageFont

from jaxdefect.contracts import Detections
from jaxdefect.explain import detections

GRAY = np.full((100, 100), 128, np.uint8)
CLASSES = ('dent', 'crack')
NONE = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)
ORANGE, BLUE = detections.class_colors(2)


def _one(box=(30, 40, 70, 80), label=0, score=0.87):
  return np.array([box], float), np.array([label]), np.array([score])


def _has(drawn, color, y, x) -> bool:
  """Whether the colour is within two pixels of a place."""
  return bool((drawn[y - 2 : y + 3, x - 2 : x + 3] == color).all(-1).any())


def test_box_lies_on_its_edges():
  drawn = detections.draw(GRAY, *_one(), CLASSES, min_side=400)
  assert drawn.shape == (400, 400, 3)
  assert drawn.dtype == np.uint8
  for y, x in ((160, 250), (320, 200), (240, 120), (240, 280)):
    assert _has(drawn, ORANGE, y, x)
  assert (drawn[200:300, 180:260] == 128).all()  # the defect stays in sight
  assert (drawn[:120] == 128).all()
  assert (drawn[330:] == 128).all()


def test_colour_follows_the_class():
  drawn = detections.draw(GRAY, *_one(label=1), CLASSES)
  assert (drawn == BLUE).all(-1).any()
  assert not (drawn == ORANGE).all(-1).any()
  colors = detections.class_colors(30)
  assert len(set(colors)) == 30
  assert colors[:2] == [ORANGE, BLUE]


def test_true_boxes_are_dashed():
  truth = np.array([[30.0, 40, 70, 80]]), np.array([0])
  drawn = detections.draw(GRAY, *NONE, CLASSES, truth=truth, min_side=400)
  line = drawn[240 - 60 : 240 + 40, 120:123].mean(-1)
  assert (line == 255).any()
  assert (line == 0).any()
  assert not (drawn == ORANGE).all(-1).any()


def test_highlighted_miss_is_named_alone():
  truth = np.array([[10.0, 10, 40, 40], [60, 60, 90, 90]]), np.array([0, 1])
  drawn = detections.draw(GRAY, *NONE, CLASSES, truth=truth, highlight=('truth', 1), min_side=400)
  red = (drawn == detections.RED).all(-1)
  assert red[230:].any()
  assert not red[:170].any()
  # Only the highlighted box has a name: the first one's surroundings are untouched.
  assert (drawn[170:200, 20:150] == 128).all()


def test_window_shows_a_part():
  whole = detections.draw(GRAY, *_one(), CLASSES, min_side=100)
  assert whole.shape == (100, 100, 3)
  part = detections.draw(GRAY, *_one(), CLASSES, window=(20, 30, 80, 90), min_side=240)
  assert part.shape == (240, 240, 3)
  assert _has(part, ORANGE, 4 * (40 - 30), 4 * (60 - 20))
  # A box outside of the window leaves no trace.
  far = detections.draw(GRAY, *_one((0, 0, 15, 15)), CLASSES, window=(20, 30, 80, 90), min_side=60)
  assert (far == 128).all()


def test_window_around_stays_inside():
  assert detections.window_around((0, 0, 10, 10), (640, 480), smallest=200) == (0, 0, 200, 200)
  assert detections.window_around((630, 470, 640, 480), (480, 640)) == (416, 256, 640, 480)
  assert detections.window_around((10, 10, 110, 60), (200, 1000), smallest=50) == (0, 0, 250, 200)
  assert detections.window_around((5, 5, 9, 9), (20, 30)) == (0, 0, 30, 20)


def test_every_kind_of_picture():
  for shape in ((52, 52), (20, 300), (1200, 800, 3), (64, 64, 1)):
    image = np.zeros(shape, np.uint8)
    height, width = shape[:2]
    drawn = detections.draw(image, *_one((0, 0, width, height)), CLASSES)
    assert max(drawn.shape[:2]) == max(480, *shape[:2])
    assert drawn.any()
  # Boxes that touch or leave the picture, or have no size, do no harm.
  odd = np.array([[-20.0, -20, 5, 5], [99.9, 99.9, 100, 100], [50, 50, 50, 50], [200, 0, 300, 9]])
  detections.draw(
    GRAY, odd, np.zeros(4, int), np.linspace(0, 1, 4), CLASSES, truth=(odd, odd[:, 0] > 0)
  )


def test_names_do_not_hide_each_other():
  # Two boxes that nearly agree: as much of either colour is seen as in a picture of its own.
  boxes = np.array([[30.0, 40, 70, 80], [32, 42, 72, 82]])
  drawn = detections.draw(GRAY, boxes, np.array([0, 1]), np.array([0.9, 0.8]), CLASSES)
  alone = [
    detections.draw(GRAY, *_one(boxes[k], label=k, score=0.9 - k / 10), CLASSES) for k in (0, 1)
  ]
  tags = [(image == color).all(-1).sum() for image, color in zip(alone, (ORANGE, BLUE))]
  assert (drawn == ORANGE).all(-1).sum() > 0.9 * tags[0]
  assert (drawn == BLUE).all(-1).sum() > 0.9 * tags[1]


def test_names_in_any_script_are_drawn():
  for name in ('划痕', 'Größe $x_1$', '<b>', ''):
    drawn = detections.draw(GRAY, *_one(), (name,))
    assert (drawn == ORANGE).all(-1).any()
  assert isinstance(detections._font('a', 12), ImageFont.FreeTypeFont)


def test_nothing_to_draw_is_the_picture():
  image = np.random.default_rng(0).integers(0, 256, (500, 480, 3)).astype(np.uint8)
  np.testing.assert_array_equal(detections.draw(image, *NONE, CLASSES), image)
  before = image.copy()
  detections.draw(image, *_one(), CLASSES)
  np.testing.assert_array_equal(image, before)  # the argument is not drawn upon


def test_in_picture_divides_by_the_scale_and_drops_padding():
  predictions = Detections(
    boxes=np.array([[[0, 0, 8, 8], [8, 8, 16, 24], [1, 1, 2, 2]]], np.float32),
    scores=np.array([[0.9, 0.4, 0.7]], np.float32),
    labels=np.array([[1, 0, 1]], np.int32),
    valid=np.array([[True, True, False]]),
  )
  boxes, labels, scores = detections.in_picture(predictions, 0, scale=2.0)
  np.testing.assert_allclose(boxes, [[0, 0, 4, 4], [4, 4, 8, 12]])
  assert labels.tolist() == [1, 0]
  assert scores.tolist() == pytest.approx([0.9, 0.4])
  assert len(detections.in_picture(predictions, 0, min_score=0.5)[0]) == 1


def test_rejects_what_does_not_fit():
  with pytest.raises(ValueError, match='labels holds 2'):
    detections.draw(GRAY, *_one(label=2), CLASSES)
  with pytest.raises(ValueError, match='window'):
    detections.draw(GRAY, *_one(), CLASSES, window=(0, 0, 101, 50))
  with pytest.raises(AssertionError):
    detections.draw(GRAY, np.zeros((2, 4)), np.zeros(1, int), np.zeros(2), CLASSES)
