"""What a recogniser's report warns of."""

from launch.tasks import recognition


def _result(*rows):
  return {
    'support': {'bent': sum(rows[0]), 'good': sum(rows[1])},
    'classes': ['bent', 'good'],
    'confusion_matrix': [list(row) for row in rows],
    'metrics': {'accuracy': 0.9},
    'floor': {'metrics': {'accuracy': 0.5}},
  }


def test_mistakes_of_one_class_are_named():
  assert recognition.warnings(_result((17, 3), (0, 20))) == ['All 3 mistakes are pictures of bent.']
  assert recognition.warnings(_result((18, 2), (1, 20))) == []
  assert recognition.warnings(_result((19, 1), (0, 20))) == []


def test_few_test_images_are_named():
  said = recognition.warnings(_result((5, 0), (0, 6)))
  assert said == ['Every class has fewer than 20 test images, so the intervals are wide.']
  said = recognition.warnings(_result((5, 0), (0, 20)))
  assert said == ['bent has fewer than 20 test images, so the intervals are wide.']


def test_that_good_parts_have_no_class_is_said():
  made = _result((20, 0), (0, 20)) | {'classes': ['bent', 'worn']}
  assert recognition.warnings(made) == [
    'Every picture is called one of the classes, and none is named good: this sorts known '
    'defects, and does not find them among good parts.'
  ]
