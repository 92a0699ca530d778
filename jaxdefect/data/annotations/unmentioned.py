"""Pictures in a folder that no annotation names: forgotten, or good parts?"""

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxdefect.data.annotations.annotated import Annotated
from jaxdefect.data.annotations.findings import Findings

CHOICES = ('leave_out', 'negative', 'error')
_WHAT = 'images that no annotation mentions'


def with_unmentioned(
  annotated: Sequence[Annotated],
  paths: Iterable[pathlib.Path],
  root: pathlib.Path,
  findings: Findings,
  *,
  unmentioned: str,
) -> list[Annotated]:
  """Decides on the pictures that have no annotation, and sorts all by name.

  A picture without an annotation may be a good part, or one that nobody has looked at yet; to
  train on the latter as a negative teaches a detector to miss defects. So the user says which.

  Args:
    annotated: the pictures that have one.
    paths: all pictures that were found on disk.
    root: the folder below which they are named.
    findings: takes one note or error per picture without an annotation.
    unmentioned: ``'leave_out'``, ``'negative'`` (a picture without boxes) or ``'error'``.

  Returns:
    ``annotated``, and as negatives the others where that was chosen, by name.
  """
  if unmentioned not in CHOICES:
    raise ValueError(f'unmentioned must be one of {", ".join(CHOICES)}, got {unmentioned!r}.')
  mentioned = {one.path.resolve() for one in annotated}  # however the file spells them
  found = list(annotated)
  for path in paths:
    if path.resolve() in mentioned:
      continue
    name = path.relative_to(root).as_posix()
    if unmentioned == 'error':
      hint = "unmentioned='leave_out' or 'negative' says what they are"
      findings.error(_WHAT, name, hint=hint)
    elif unmentioned == 'leave_out':
      findings.note(f'{_WHAT}, left out', name)
    else:
      findings.note(f'{_WHAT}, taken as negatives', name)
      found.append(Annotated(name, path, None, np.zeros((0, 4)), np.zeros(0, np.int32), ()))
  return sorted(found, key=lambda one: one.name)
