"""Boxes from files: their formats, and what is done with those that cannot be right.

A format's reader (``read_voc``, ``read_coco``) gives boxes as they are written; ``to_source``
holds them against the pictures and builds the ``Source``. ``Findings`` gathers what is wrong, so
that an error counts all offenders and a repair is reported place by place.
"""

from jaxdefect.data.annotations.annotated import Annotated, image_size, to_source
from jaxdefect.data.annotations.coco import CocoAnnotations, read_coco
from jaxdefect.data.annotations.findings import Findings
from jaxdefect.data.annotations.fit_boxes import fit_boxes
from jaxdefect.data.annotations.voc import VocAnnotation, read_voc

__all__ = [
  'Annotated',
  'CocoAnnotations',
  'Findings',
  'VocAnnotation',
  'fit_boxes',
  'image_size',
  'read_coco',
  'read_voc',
  'to_source',
]
