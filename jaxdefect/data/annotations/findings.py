"""What is wrong with a data set, gathered by kind before it is raised or reported."""

import itertools

from jaxdefect.data.source import Note


class Findings:
  """Errors and notes about one data set.

  >>> found = Findings('The annotations boxes.json')
  >>> found.note('images without any box', 'a.jpg')
  >>> found.error('annotations of an image that the file does not list', 'annotation 7')
  >>> found.error('annotations of an image that the file does not list', 'annotation 9')
  >>> found.refuse()
  Traceback (most recent call last):
    ...
  ValueError: The annotations boxes.json: annotations of an image that the file does not list: \
2 in all, the first is annotation 7.
  """

  def __init__(self, subject: str):
    """Starts with nothing found.

    Args:
      subject: what every error is about, the beginning of its sentence.
    """
    self._subject = subject
    self._errors: dict[str, list[str]] = {}
    self._hints: dict[str, str] = {}
    self._notes: dict[str, list[str]] = {}

  def error(self, what: str, where: str, *, hint: str = '') -> None:
    """Adds something that the data set cannot be used with.

    Args:
      what: the kind, in the plural.
      where: the place, by file and number.
      hint: what the user can do about the kind; ends the sentence.
    """
    self._errors.setdefault(what, []).append(where)
    self._hints[what] = hint

  def note(self, what: str, where: str) -> None:
    """Adds something that was repaired, left out or is only worth knowing."""
    self._notes.setdefault(what, []).append(where)

  def refuse(self) -> None:
    """Raises a ``ValueError`` for the first kind of error, if there is any."""
    for what, where in itertools.islice(self._errors.items(), 1):
      hint = self._hints[what] and f'; {self._hints[what]}'
      raise ValueError(
        f'{self._subject}: {what}: {len(where)} in all, the first is {where[0]}{hint}.'
      )

  def notes(self) -> tuple[Note, ...]:
    """What was noted, in the order in which each kind was first met."""
    return tuple(Note(what, tuple(where)) for what, where in self._notes.items())
