import numpy as np
import pytest

from jaxdefect.contracts import References
from jaxdefect.data.good_parts import good_parts


def batch(*labels: int, valid: int | None = None) -> dict[str, np.ndarray]:
  count = len(labels) if valid is None else valid
  return {'label': np.array(labels, np.int32), 'valid': np.arange(len(labels)) < count}


def test_batches_come_as_they_are():
  batches = [batch(1, 1), batch(1, 0, valid=1)]
  assert list(good_parts(References(('defect', 'good'), batches))) == batches


@pytest.mark.parametrize(
  ('classes', 'batches', 'message'),
  [
    (('crack',), [batch(0)], "learns from pictures of the class 'good'"),
    (('good', 'crack'), [batch(0), batch(0, 1)], "a picture of 'crack'"),
    (('good',), [batch(0, valid=0)], 'no picture'),
  ],
)
def test_anything_but_good_parts_is_refused(classes, batches, message):
  with pytest.raises(ValueError, match=message):
    list(good_parts(References(classes, batches)))
