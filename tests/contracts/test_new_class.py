"""Classes that only training could add are refused by name, and known ones are not."""

import pytest

from jaxdefect.contracts import Fitted, NewClassError, References, refuse_new_classes

FITTED = Fitted(params={}, model_state={}, classes=('dent', 'good'))


def test_a_new_class_is_named_with_what_is_known():
  with pytest.raises(NewClassError) as error:
    refuse_new_classes(FITTED, References(('good', 'crack'), []), method='m', instead='n can')
  assert str(error.value) == (
    "m cannot learn the class 'crack' without training; it knows dent, good (n can)"
  )


def test_known_classes_pass():
  refuse_new_classes(FITTED, References(('good',), []), method='m')
