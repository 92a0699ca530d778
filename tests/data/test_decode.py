"""Pictures of every kind become uint8, and damaged ones one sentence."""

import numpy as np
import pytest
from PIL import Image

from jaxdefect.data import decode

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=2)


def _saved(tmp_path, image, suffix='.png', **kwargs):
  path = tmp_path / f'image{suffix}'
  image.save(path, **kwargs)
  return path


def test_gray_and_colour_by_hand(tmp_path):
  np.testing.assert_array_equal(
    decode.read_image(_saved(tmp_path, Image.fromarray(GRAY))), GRAY[..., None]
  )
  np.testing.assert_array_equal(
    decode.read_image(_saved(tmp_path, Image.fromarray(COLOUR), '.bmp')), COLOUR
  )


def test_one_bit_is_black_and_white(tmp_path):
  bits = Image.fromarray(GRAY > 100)
  np.testing.assert_array_equal(
    decode.read_image(_saved(tmp_path, bits, '.tif')), 255 * (GRAY > 100)[..., None]
  )


def test_palette_becomes_its_colours(tmp_path):
  image = Image.fromarray(GRAY // 20)
  image.putpalette([value for i in range(256) for value in (i, 2 * i % 256, 7)])
  pixels = decode.read_image(_saved(tmp_path, image))
  i = GRAY.astype(int) // 20
  np.testing.assert_array_equal(pixels, np.stack([i, 2 * i, np.full_like(i, 7)], axis=2))


def test_transparency_lies_over_black(tmp_path):
  rgba = np.dstack([COLOUR, np.full((3, 4), 255, np.uint8)])
  rgba[0, 0, 3] = 0
  expected = COLOUR.copy()
  expected[0, 0] = 0
  np.testing.assert_array_equal(
    decode.read_image(_saved(tmp_path, Image.fromarray(rgba))), expected
  )
  palette = Image.fromarray(GRAY // 20)
  palette.putpalette([9] * 768)
  pixels = decode.read_image(_saved(tmp_path, palette, transparency=3))
  assert pixels[0, 3].tolist() == [0, 0, 0]
  assert pixels[0, 2].tolist() == [9, 9, 9]
  gray = Image.fromarray(np.dstack([GRAY, np.full((3, 4), 255, np.uint8)]), 'LA')
  np.testing.assert_array_equal(decode.read_image(_saved(tmp_path, gray)), GRAY[..., None])


@pytest.mark.parametrize('most', [4095, 65535])
def test_window_counts_the_levels_of_the_file(tmp_path, most):
  """Pillow stretches what a PGM calls white to 65535."""
  path = tmp_path / 'image.pgm'
  levels = np.asarray([0, 1000, 2000, 4095], '>u2')
  path.write_bytes(b'P5 4 1 %d\n' % most + levels.tobytes())
  pixels = decode.read_image(path, sixteen_bit_range=(0, 4095))
  assert pixels.ravel().tolist() == [0, 62, 125, 255]
  path.write_text(f'P2 4 1 {most}\n0 1000 2000 4095\n')
  assert (decode.read_image(path, sixteen_bit_range=(0, 4095)) == pixels).all()


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_sixteen_bit_uses_one_absolute_window(tmp_path, suffix):
  values = np.asarray([[0, 1000, 1500, 2000, 65535]], np.uint16)
  path = _saved(tmp_path, Image.fromarray(values), suffix)
  assert decode.read_image(path)[0, :, 0].tolist() == [0, 4, 6, 8, 255]
  windowed = decode.read_image(path, sixteen_bit_range=(1000, 2000))
  assert windowed[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_exif_orientation_is_applied(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was turned: rotate clockwise to see it upright.
  pixels = decode.read_image(_saved(tmp_path, Image.fromarray(GRAY), exif=exif))
  np.testing.assert_array_equal(pixels[..., 0], np.rot90(GRAY, -1))


@pytest.mark.parametrize('content', [b'', b'no picture', None])
def test_rejects_damaged_files_by_name(tmp_path, content):
  path = tmp_path / 'bad.png'
  if content is None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()[:2000]
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'bad\.png cannot be read: .*[^.]\.$') as caught:
    decode.read_image(path)
  assert '\n' not in str(caught.value)


def test_rejects_what_needs_guessing(tmp_path):
  floating = _saved(tmp_path, Image.fromarray(GRAY.astype(np.float32)), '.tif')
  with pytest.raises(ValueError, match='floating-point'):
    decode.read_image(floating)
  with pytest.raises(ValueError, match='low < high'):
    decode.read_image(_saved(tmp_path, Image.fromarray(GRAY)), sixteen_bit_range=(5, 5))
  with pytest.raises(FileNotFoundError, match='does not exist'):
    decode.read_image(tmp_path / 'absent.png')


def test_resize_averages_when_it_shrinks():
  # Stripes one pixel wide: without antialias they would survive as 0 or 255.
  stripes = np.tile(np.asarray([0, 255], np.uint8), (32, 32))[..., None]
  small = decode.resize(stripes, (8, 16))
  assert small.shape == (8, 16, 3)
  assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 4
  np.testing.assert_array_equal(small[..., 0], small[..., 2])


def test_nearest_keeps_levels():
  levels = np.asarray([0, 127, 255], np.uint8)[np.arange(52 * 52).reshape(52, 52, 1) % 3]
  large = decode.resize(levels, (96, 96), interpolation='nearest')
  assert set(np.unique(large)) == {0, 127, 255}


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match='interpolation must be one of bilinear, nearest'):
    decode.resize(GRAY[..., None], (4, 4), interpolation='cubic')
  with pytest.raises(ValueError, match='uint8'):
    decode.resize(GRAY.astype(np.float32)[..., None], (4, 4))


def test_pixel_hash_sees_pixels_and_shape_alone():
  gray = GRAY[..., None]
  assert decode.pixel_hash(gray) == decode.pixel_hash(np.repeat(gray, 3, axis=2))
  assert decode.pixel_hash(gray) != decode.pixel_hash(gray.reshape(4, 3, 1))
  assert decode.pixel_hash(gray) != decode.pixel_hash(gray + 1)
