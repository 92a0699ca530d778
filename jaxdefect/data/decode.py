"""From a picture file to uint8 pixels, and from any size to the network's size.

Shape legend: H x W native pixels, h x w wanted pixels, C channels (1 or 3).
"""

import hashlib
import io
import os
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

# What we open when we list a folder; everything else in it is ignored.
SUFFIXES = (
  '.bmp',
  '.gif',
  '.jpeg',
  '.jpg',
  '.pbm',
  '.pgm',
  '.png',
  '.pnm',
  '.ppm',
  '.tif',
  '.tiff',
  '.webp',
)

FULL_RANGE = (0, 65535)

_INTERPOLATION = ('bilinear', 'nearest')

# What Pillow and the libraries under it are known to raise on damaged files.
_DAMAGE = (
  OSError,
  SyntaxError,
  ValueError,
  EOFError,
  IndexError,
  OverflowError,
  struct.error,
  zlib.error,
  Image.DecompressionBombError,
)


class Unreadable(ValueError):
  """A picture file is empty, damaged or of a kind that cannot be shown in 8 bits."""


def read_image(
  path: str | os.PathLike[str], *, sixteen_bit_range: tuple[int, int] = FULL_RANGE
) -> np.ndarray:
  """Decodes one picture to 8 bits per channel.

  Gray stays one channel, 1-bit becomes 0 and 255, palette, CMYK and the rest become RGB,
  transparency is laid over black, and the EXIF orientation is applied. A file of several pages
  gives its first.

  Gray levels v of more than 8 bits are mapped through one absolute window, the same for every
  image, so that brightness keeps its meaning:

    ``u = round(255 * clip((v - low) / (high - low), 0, 1))``

  Args:
    path: the file.
    sixteen_bit_range: (low, high) of the window, in gray levels.

  Returns:
    uint8 [H, W, C], C in {1, 3}.

  Raises:
    Unreadable: one sentence naming the file, when it is empty, damaged or of a kind that cannot
      be shown in 8 bits without guessing.
  """
  path = pathlib.Path(path)
  try:
    return decode(path.read_bytes(), sixteen_bit_range=sixteen_bit_range)
  except FileNotFoundError:
    raise FileNotFoundError(f'The image {path} does not exist.') from None
  except (OSError, ValueError) as error:
    raise Unreadable(f'The image {path} cannot be read: {error}.') from error


def decode(data: bytes, *, sixteen_bit_range: tuple[int, int] = FULL_RANGE) -> np.ndarray:
  """As ``read_image``, from the bytes of a picture file.

  Args:
    data: all bytes of the file.
    sixteen_bit_range: as in ``read_image``.

  Returns:
    uint8 [H, W, C], C in {1, 3}.

  Raises:
    ValueError: the reason alone, in a few words.
  """
  low, high = sixteen_bit_range
  if not low < high:
    raise ValueError(f'sixteen_bit_range must be (low, high) with low < high, got ({low}, {high})')
  if not data:
    raise ValueError('it has no bytes')
  try:
    with Image.open(io.BytesIO(data)) as image:
      # Pillow hands 16-bit colour over as its upper 8 bits, whatever the window.
      deep_colour = any('16' in str(tile[3]) for tile in image.tile) and image.mode[0] in 'RC'
      if deep_colour and (low, high) != FULL_RANGE:
        raise ValueError('sixteen_bit_range is for gray images, and this is 16-bit colour')
      levels = _levels_of_netpbm(image)
      image.load()
      return _to_uint8(ImageOps.exif_transpose(image), low, high, levels)
  except UnidentifiedImageError:
    raise ValueError('it is no picture, or is damaged from the start') from None
  except _DAMAGE as error:
    raise ValueError(' '.join(str(error).split()).rstrip('.') or type(error).__name__) from error


def _levels_of_netpbm(image: ImageFile.ImageFile) -> int:
  """The white of a PGM that is not loaded yet: Pillow stretches it to 65535, whatever it is."""
  arguments = image.tile[0][3] if image.format == 'PPM' and image.tile else None
  return arguments[1] if isinstance(arguments, tuple) and len(arguments) == 2 else FULL_RANGE[1]


def _to_uint8(image: Image.Image, low: int, high: int, levels: int) -> np.ndarray:
  if image.mode == 'F':
    raise ValueError('floating-point pixels have no known range, so store it as 16-bit integers')
  if image.mode == 'I' or image.mode.startswith('I;'):
    values = np.asarray(image).astype(np.float64)
    values = np.round(values * (levels / FULL_RANGE[1]))
    window = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.round(255.0 * window).astype(np.uint8)[..., None]  # [H, W, 1]
  if image.has_transparency_data:
    gray = image.mode in ('L', 'LA', 'La', '1')
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image)
    image = image.convert('L' if gray else 'RGB')
  elif image.mode in ('1', 'L'):
    image = image.convert('L')
  else:
    image = image.convert('RGB')
  pixels = np.array(image, np.uint8)
  return pixels[..., None] if pixels.ndim == 2 else pixels


def resize(
  image: np.ndarray,
  image_size: tuple[int, int],
  *,
  interpolation: str = 'bilinear',
  region: tuple[float, float] | None = None,
) -> np.ndarray:
  """Brings an image to the network's size; a gray one is repeated to three channels.

  ``'bilinear'`` is Pillow's: with antialias when it shrinks (the triangle filter is widened by
  the scale), along the width first, whatever the version (Pillow 13 turned the order round for
  some shapes, and pixels are rounded in between). ``'nearest'`` keeps the levels of maps as they
  are: pixel i of n comes from pixel floor((i + 1/2) m / n) of m.

  This is the one definition of a picture at the network's size: what is exported does the same to
  the last bit (``convert.twins.resampling``).

  Args:
    image: uint8 [H, W, C], C in {1, 3}.
    image_size: (h, w).
    interpolation: ``'bilinear'`` or ``'nearest'``.
    region: (height, width) of the upper left part that is shown, in native pixels and not
      necessarily whole; None shows all.

  Returns:
    uint8 [h, w, 3].
  """
  if interpolation not in _INTERPOLATION:
    raise ValueError(
      f'interpolation must be one of {", ".join(_INTERPOLATION)}, got {interpolation!r}.'
    )
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
    raise ValueError(
      f'An image must be uint8 [H, W, 1 or 3], got {image.dtype} {list(image.shape)}.'
    )
  height, width = image_size
  seen = image.shape[:2] if region is None else region
  if interpolation == 'nearest':
    rows, columns = (
      np.minimum((np.arange(want) + 0.5) * (float(np.float32(shown)) / want), have - 1).astype(int)
      for want, shown, have in zip(image_size, seen, image.shape)
    )
    image = image[rows][:, columns]
  else:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for size, shown in (
      ((width, picture.height), (0.0, 0.0, float(seen[1]), float(picture.height))),
      ((width, height), (0.0, 0.0, float(width), float(seen[0]))),
    ):
      picture = picture.resize(size, Image.Resampling.BILINEAR, shown)
    image = np.asarray(picture)
    image = image[..., None] if image.ndim == 2 else image
  return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image  # [h, w, 3]


def pixel_hash(image: np.ndarray) -> str:
  """sha256 of an image's shape and pixels: the same for every lossless way to store it.

  A gray image counts as one channel even where a file repeats it three times.
  """
  if image.shape[2] == 3 and (image == image[..., :1]).all():
    image = image[..., :1]
  digest = hashlib.sha256(repr(image.shape).encode())
  digest.update(image.tobytes())
  return digest.hexdigest()
