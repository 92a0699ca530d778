"""What a method says that tells apart only the classes that it was trained on."""

from jaxdefect.contracts.batch import References
from jaxdefect.contracts.method import Fitted


class NewClassError(ValueError):
  """``adapt`` was shown a class that only training could add."""


def refuse_new_classes(
  fitted: Fitted, references: References, *, method: str, instead: str = ''
) -> None:
  """Ends ``adapt`` of a method that cannot add a class.

  Args:
    fitted: what ``adapt`` is given.
    references: what ``adapt`` is given.
    method: its name.
    instead: which methods can, for the sentence; '' names none.

  Raises:
    NewClassError: the references hold a class that is not among ``fitted.classes``.
  """
  unknown = [name for name in references.classes if name not in fitted.classes]
  if unknown:
    raise NewClassError(
      f'{method} cannot learn the class {unknown[0]!r} without training; it knows '
      f'{", ".join(fitted.classes)}' + (f' ({instead})' if instead else '')
    )
