"""The pixels at the network's size: the same to the last bit in numpy, PyTorch and ONNX."""

import numpy as np
import pytest
import torch
from PIL import Image

from jaxdefect.convert import onnx_file, to_onnx, twins
from jaxdefect.convert.twins import resampling
from jaxdefect.data import decode, letterbox

SHAPES = [
  ((7, 5), (16, 16)),  # enlarged
  ((200, 311), (64, 48)),  # shrunk: antialiased
  ((397, 52), (25, 35)),  # one side far more than the other: Pillow 13 would turn the passes round
  ((31, 328), (238, 134)),
  ((33, 47), (33, 47)),
  ((1, 90), (20, 30)),
  ((64, 1), (20, 30)),
  ((90, 61), (53, 53)),
]


def picture(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
@pytest.mark.parametrize(('have', 'want'), SHAPES)
def test_stretched_pixels_are_ours(have, want, interpolation):
  image = picture(have)
  ours = decode.resize(image, want, interpolation=interpolation)
  theirs = resampling.stretched(torch.from_numpy(image)[None], want, interpolation)[0]
  np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
@pytest.mark.parametrize(('have', 'want'), SHAPES)
def test_letterboxed_pixels_are_ours(have, want, interpolation):
  image = picture(have, seed=1)
  ours = letterbox.letterbox(image, want, interpolation=interpolation)
  canvas, size, scale = resampling.letterboxed(torch.from_numpy(image)[None], want, interpolation)
  np.testing.assert_array_equal(canvas[0], ours.image)
  np.testing.assert_array_equal(size, ours.size)
  assert float(scale) == float(ours.scale)


def test_one_pass_is_pillows():
  # Either pass alone is Pillow's own call, in every version.
  image = picture((40, 90))
  for size in ((40, 33), (25, 90), (40, 200)):
    own = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode.resize(image, size), np.asarray(own))


class Pixels(twins.Deployed):
  """Nothing but the picture at the network's size."""

  outputs = ('pixels',)

  def inspect(self, pixels):
    return (pixels,)


def test_onnx_gives_the_same_pixels(tmp_path):
  module = Pixels(classes=['a'], mean=[0, 0, 0], std=[1, 1, 1], image_size=(48, 64)).eval()
  described = {'format': onnx_file.FORMAT, 'outputs': ['pixels'], 'classes': ['a']}
  to_onnx.write(tmp_path / 'a.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'a.onnx')
  for have, _ in SHAPES:
    image = picture(have)
    (pixels,) = model(np.stack([image, 255 - image]))
    np.testing.assert_array_equal(pixels[0], decode.resize(image, (48, 64)))
    np.testing.assert_array_equal(pixels[1], decode.resize(255 - image, (48, 64)))
