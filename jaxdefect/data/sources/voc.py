"""Images of the user's own with one Pascal VOC XML file each."""

import collections
import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxdefect.data import annotations, decode
from jaxdefect.data.annotations.unmentioned import with_unmentioned
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder


def make(
  *,
  dir: str | os.PathLike[str],
  classes: Sequence[str] | None = None,
  bad_boxes: str = 'error',
  unmentioned: str = 'leave_out',
  first_pixel: int = 1,
  suffixes: Sequence[str] = decode.SUFFIXES,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
  name: str = 'voc',
) -> Source:
  """Opens a folder with images and XML files anywhere below it.

  ``a.xml`` belongs to the image ``a.jpg`` (any ending); where there is none, to the one that its
  ``<filename>`` names. Of several, the nearest in the tree of folders is taken, so that
  ``train/xml/1.xml`` goes with ``train/images/1.jpg`` and not with ``test/images/1.jpg``; then the
  one whose ending ``<filename>`` has. Only the headers of the images are read. Every repair, and
  everything that is left out, is in ``Source.notes`` by file and box (counted from 1); see
  ``annotations.fit_boxes`` and ``annotations.to_source``.

  Args:
    dir: the folder.
    classes: the class names, in this order; a box of another class is an error. None takes those
      of the boxes, sorted.
    bad_boxes: ``'error'`` or ``'repair'``; see ``annotations.fit_boxes``.
    unmentioned: images without an XML file: ``'leave_out'``, ``'negative'`` (a good part) or
      ``'error'``. Images whose XML file has no box are negatives in any case.
    first_pixel: 1 as VOC counts; 0 where the files hold edges counted from 0.
    suffixes: file endings that count as images.
    sixteen_bit_range: as in ``decode.read_image``.
    name: what the data set is called.

  Returns:
    The images, named by their path below ``dir``, with the annotations ``boxes`` and
    ``box_labels``. Boxes marked ``difficult`` are boxes like all others, and noted.

  Raises:
    FileNotFoundError: the folder is missing.
    ValueError: one sentence with the first offender of a kind and how many there are.
  """
  paths = folder.images_in(dir, suffixes=suffixes)
  root = pathlib.Path(dir)
  xmls = folder.images_below(root, ('.xml',))
  if not xmls:
    raise ValueError(f'The folder {root} holds images but no XML files.')
  findings = annotations.Findings(f'The folder {root}')
  read = {xml: annotations.read_voc(xml, first_pixel=first_pixel, check=False) for xml in xmls}
  if classes is None:
    classes = sorted({one for voc in read.values() for one in voc.names if one})
  owner = _owners(root, read, paths, findings)
  annotated = []
  for path, xml in owner.items():
    voc, where = read[xml], xml.relative_to(root).as_posix()
    places = [f'{where} box {k}' for k in range(1, len(voc.names) + 1)]
    for kind, place, difficult in zip(voc.names, places, voc.difficult):
      if kind not in classes:
        what = f'boxes of a class that is not among {", ".join(classes)}'
        findings.error(what if kind else 'boxes without a class name', f'{place} ({kind!r})')
      if difficult:
        findings.note('boxes that are marked difficult, kept', place)
    labels = [classes.index(kind) if kind in classes else 0 for kind in voc.names]
    annotated.append(
      annotations.Annotated(
        name=path.relative_to(root).as_posix(),
        path=path,
        size=voc.size,
        boxes=voc.boxes,
        labels=np.asarray(labels, np.int32),
        places=places,
      )
    )
  annotated = with_unmentioned(annotated, paths, root, findings, unmentioned=unmentioned)
  if not classes:
    findings.refuse()
    raise ValueError(f'The XML files below {root} hold no box.')
  return annotations.to_source(
    name,
    classes,
    annotated,
    findings,
    bad_boxes=bad_boxes,
    sixteen_bit_range=sixteen_bit_range,
  )


def _owners(
  root: pathlib.Path,
  read: dict[pathlib.Path, annotations.VocAnnotation],
  paths: Iterable[pathlib.Path],
  findings: annotations.Findings,
) -> dict[pathlib.Path, pathlib.Path]:
  """Image -> its XML file."""
  by_stem: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
  for path in paths:
    by_stem[path.stem].append(path)
  owner: dict[pathlib.Path, pathlib.Path] = {}
  for xml, voc in read.items():
    where = xml.relative_to(root).as_posix()
    named = pathlib.PurePosixPath(voc.filename.replace('\\', '/'))
    # Tools often leave the name of another file in <filename>; the XML's own name is safer.
    fitting = by_stem.get(xml.stem) or by_stem.get(named.name) or by_stem.get(named.stem) or []
    if not fitting:
      findings.error('XML files whose image is missing', f'{where} (of {voc.filename!r})')
      continue
    best = min(_strangeness(path, xml, named.name) for path in fitting)
    nearest = [path for path in fitting if _strangeness(path, xml, named.name) == best]
    shown = nearest[0].relative_to(root).as_posix()
    if len(nearest) > 1:
      other = nearest[1].relative_to(root).as_posix()
      findings.error('XML files that fit several images', f'{where} ({shown} and {other})')
    elif nearest[0] in owner:
      findings.error('images with more than one XML file', f'{shown} ({where})')
    else:
      owner[nearest[0]] = xml
      if nearest[0].stem == xml.stem != named.stem and named.stem in by_stem:
        findings.note(
          "XML files whose <filename> is another image's, matched by their own name",
          f'{where} (of {voc.filename!r})',
        )
  return owner


def _strangeness(path: pathlib.Path, xml: pathlib.Path, filename: str) -> tuple[int, bool]:
  """How far an image is from an XML file: folders on the way, then another ending."""
  ours, others = path.parent.parts, xml.parent.parts
  same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, others))
  return len(ours) + len(others) - 2 * len(list(same)), path.name != filename
