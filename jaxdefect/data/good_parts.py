"""The good parts among references: what an anomaly method is fitted to."""

from collections.abc import Iterator

from jaxdefect.contracts import Batch, References

GOOD = 'good'


def good_parts(references: References) -> Iterator[Batch]:
  """The batches of references that are known to be good parts, and nothing else.

  A defective picture among them would teach a method that the defect is normal, so it is refused
  instead of left out.

  Args:
    references: their only class is ``'good'``, or they have further classes without a picture.

  Yields:
    The batches, as they are.

  Raises:
    ValueError: there is no class ``'good'``, a valid picture is of another class, or there is no
      picture at all.
  """
  if GOOD not in references.classes:
    raise ValueError(
      f'the references have the classes {", ".join(references.classes) or "none"}; an anomaly '
      f'method learns from pictures of the class {GOOD!r}.'
    )
  good, pictures = references.classes.index(GOOD), 0
  for batch in references.batches:
    labels = batch['label'][batch['valid']]
    pictures += labels.size
    for label in labels[labels != good][:1]:
      raise ValueError(
        f'the references hold a picture of {references.classes[int(label)]!r}; an anomaly method '
        'learns from good parts alone.'
      )
    yield batch
  if not pictures:
    raise ValueError('the references hold no picture; at least one good part is needed.')
