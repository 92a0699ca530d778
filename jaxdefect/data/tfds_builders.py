"""TFDS builders of the data sets, written as array_record without TensorFlow.

::

  builder = Neu(data_dir=out, manual_dir=folder)
  builder.build()

``sources.load('tfds', name='neu', dir=out)`` reads the result back as a ``Source``. The official
archives have no download address, so a builder reads the unpacked ``manual_dir``. Where a data set
holds several products, each is a config, ``Mvtec(config='bottle', ...)``, and is read back by both
names: ``sources.load('tfds', name='mvtec/bottle', dir=out)``.
"""

import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxdefect.data import sources
from jaxdefect.data.source import Source
from jaxdefect.data.sources import dagm, mvtec
from jaxdefect.data.sources.tfds import NUMBERS, TEXTS


class SourceBuilder(tfds.core.GeneratorBasedBuilder):
  """Writes a ``Source`` as one TFDS split ``train``.

  Features: ``image`` (PNG; gray ones stay one channel), ``label``, ``name``; ``group`` where the
  source has groups; ``objects`` (``box`` as ymin, xmin, ymax, xmax over height and width, and
  ``label``) where it has boxes; ``multi_hot``, ``mask`` (PNG of 0 and 1), ``kind``, ``official``,
  ``cell`` (texts) and ``probability`` where it has those. Sub-classes open their source.
  """

  VERSION = tfds.core.Version('1.0.0')
  SKIP_REGISTERING = True
  # TFDS would look beside the code for checksums of downloads, with a package that it does not
  # require (importlib_resources); there are no downloads.
  code_path = None

  def __init__(
    self,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    file_format: str = 'array_record',
    **kwargs: Any,
  ):
    """Takes a builder's place on disk and its input.

    Args:
      data_dir: where the built data set is written.
      manual_dir: the unpacked data set; only needed to build.
      file_format: of the built files; ``'array_record'`` needs no TensorFlow.
      **kwargs: as for any TFDS builder; ``config`` where the data set holds several products.
    """
    self._manual_dir = None if manual_dir is None else pathlib.Path(manual_dir)
    self._opened: Source | None = None
    if self.BUILDER_CONFIGS and not kwargs.get('config'):  # TFDS would take the first.
      known = ', '.join(one.name for one in self.BUILDER_CONFIGS)
      raise ValueError(f'The builder {self.name} needs config, one of {known}.')
    super().__init__(data_dir=data_dir, file_format=file_format, **kwargs)

  @property
  def product(self) -> str:
    """Name of the config; ``''`` where the data set is one product."""
    return self.builder_config.name if self.builder_config else ''

  def open(self, manual_dir: pathlib.Path) -> Source:
    """The data set in ``manual_dir``: the source of the builder's name."""
    return sources.load(self.name, dir=manual_dir)

  def build(self) -> None:
    """Writes the data set, unless it is there."""
    self.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=self._manual_dir)
    )

  @property
  def source(self) -> Source:
    if self._opened is None:
      if self._manual_dir is None:
        raise ValueError(f'The builder {self.name} needs manual_dir, the unpacked data set.')
      self._opened = self.open(self._manual_dir)
    return self._opened

  def _info(self) -> tfds.core.DatasetInfo:
    source = self.source
    features: dict[str, Any] = {
      'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
      'label': tfds.features.ClassLabel(names=list(source.classes)),
      'name': tfds.features.Text(),
    }
    if source.groups is not None:
      features['group'] = tfds.features.Text()
    if 'boxes' in source.annotations:
      features['objects'] = tfds.features.Sequence(
        {
          'box': tfds.features.BBoxFeature(),
          'label': tfds.features.ClassLabel(names=list(source.classes)),
        }
      )
    if 'multi_hot' in source.annotations:
      length = len(source.annotations['multi_hot'][0])
      features['multi_hot'] = tfds.features.Tensor(shape=(length,), dtype=np.uint8)
    if 'mask' in source.annotations:
      features['mask'] = tfds.features.Image(shape=(None, None, 1), encoding_format='png')
    features |= {key: tfds.features.Text() for key in TEXTS if key in source.annotations}
    features |= {
      key: tfds.features.Scalar(dtype=np.float32) for key in NUMBERS if key in source.annotations
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{source.name}, {len(source)} images of {len(source.classes)} classes.',
      features=tfds.features.FeaturesDict(features),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager  # Everything is in manual_dir already.
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
    source = self.source
    for i, name in enumerate(source.names):
      image = source.read(i)
      example = {'image': _png(image), 'label': int(source.labels[i]), 'name': name}
      if source.groups is not None:
        example['group'] = source.groups[i]
      if 'boxes' in source.annotations:
        boxes, kinds = source.annotations['boxes'][i], source.annotations['box_labels'][i]
        example['objects'] = [
          {'box': _relative(box, image.shape), 'label': int(kind)}
          for box, kind in zip(boxes, kinds)
        ]
      if 'multi_hot' in source.annotations:
        example['multi_hot'] = np.asarray(source.annotations['multi_hot'][i], np.uint8)
      if 'mask' in source.annotations:
        example['mask'] = _png(np.asarray(source.annotations['mask'][i], np.uint8)[..., None])
      for key in (*TEXTS, *NUMBERS):
        if key in source.annotations:
          example[key] = source.annotations[key][i]
      yield name, example


class Neu(SourceBuilder):
  """NEU-DET; see ``sources/neu.py``."""

  name = 'neu'


class Xsdd(SourceBuilder):
  """X-SDD; see ``sources/xsdd.py``."""

  name = 'xsdd'


class MixedWm38(SourceBuilder):
  """MixedWM38; see ``sources/mixedwm38.py``."""

  name = 'mixedwm38'


class Bc(SourceBuilder):
  """Bottle caps; see ``sources/bc.py``."""

  name = 'bc'


class MagneticTile(SourceBuilder):
  """Magnetic-Tile; see ``sources/magnetic_tile.py``."""

  name = 'magnetic_tile'


class Elpv(SourceBuilder):
  """ELPV, labelled at the probability 1/2; see ``sources/elpv.py``."""

  name = 'elpv'


class Mvtec(SourceBuilder):
  """One product of MVTec AD, its name being the config; see ``sources/mvtec.py``."""

  name = 'mvtec'
  BUILDER_CONFIGS = tuple(
    tfds.core.BuilderConfig(name=category, description=f'MVTec AD, {category}.')
    for category in mvtec.CATEGORIES
  )

  def open(self, manual_dir: pathlib.Path) -> Source:
    return sources.load('mvtec', dir=manual_dir, category=self.product)


class Dagm(SourceBuilder):
  """One class of DAGM 2007, 'class1' to 'class10' being the config; see ``sources/dagm.py``."""

  name = 'dagm'
  BUILDER_CONFIGS = tuple(
    tfds.core.BuilderConfig(name=f'class{category}', description=f'DAGM 2007, class {category}.')
    for category in dagm.CATEGORIES
  )

  def open(self, manual_dir: pathlib.Path) -> Source:
    return sources.load('dagm', dir=manual_dir, category=int(self.product.removeprefix('class')))


class Folder(SourceBuilder):
  """A folder of class sub-folders; see ``sources/folder.py``."""

  name = 'folder'


def _png(image: np.ndarray) -> io.BytesIO:
  """Pillow's PNG, because TFDS encodes arrays with TensorFlow."""
  file = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, 'png')
  file.seek(0)
  return file


def _relative(box: np.ndarray, shape: tuple[int, ...]) -> tfds.features.BBox:
  height, width = shape[:2]
  x0, y0, x1, y1 = (float(value) for value in box)
  return tfds.features.BBox(ymin=y0 / height, xmin=x0 / width, ymax=y1 / height, xmax=x1 / width)
