"""The report: complete, self-contained, escaped, and written whole or not at all."""

import dataclasses
import html.parser
import json
import os
import re

import numpy as np
import pytest

from jaxdefect.contracts import ClassScores, Detections
from jaxdefect.evaluate import average_precision, classification
from jaxdefect.explain import page, plots, report
from jaxdefect.explain.detection_figures import DrawnMistake
from jaxdefect.explain.mistakes import Mistake

EVIL = '<script>alert("x")</script> & \'"'
VOID = {'meta', 'img', 'br'}


class Page(html.parser.HTMLParser):
  """Checks that tags nest, and collects text and attributes."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.tags, self.texts, self.attributes = [], [], [], []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if not self.open or self.open[-1] != 'style':
      self.texts.append(data)

  @property
  def text(self) -> str:
    return ' '.join(self.texts)


def _scores(seed: int = 0, classes: tuple[str, ...] = ('good', 'bad', EVIL)) -> dict:
  generator = np.random.default_rng(seed)
  labels = generator.integers(3, size=60)
  scores = generator.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]
  probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
  return classification.evaluate(
    ClassScores(scores, probabilities), labels, classes, num_resamples=50
  )


def _full() -> dict:
  return _scores() | {
    'floor': _scores(1) | {'name': f'pixels {EVIL}'},
    'seed': 7,
    'train_seconds': np.float32(12.5),
    'start': EVIL,
    'split': {
      'kind': 'few_shot',
      'seed': 7,
      'per_class': 10,
      'counts': {'train': {'good': 10, EVIL: 10}, 'test': {'good': 1234, EVIL: 20}},
      'near_duplicates': [['a.png', EVIL]],
      'left_out': ['b.png'],
    },
    'config': {'data': {'dir': EVIL, 'image_size': (32, 32)}, EVIL: {'x': None}},
    'versions': {'jaxdefect': '0.1.0', 'jax': EVIL},
    'warnings': [EVIL],
  }


def _mistake(overlay: bool = True) -> Mistake:
  image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  return Mistake(image, image if overlay else None, EVIL, 'bad', 0.93, 0.02, 'good', 0.05, EVIL)


def _page(values: dict, **kwargs) -> Page:
  return Page(report.html(values, title=f'run {EVIL}', **kwargs))


def test_page_holds_every_part():
  records = [{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}]
  figures = [(f'k-shot {EVIL}', plots.k_shot_curve({}))]
  values = _full()
  shown = _page(values, records=records, figures=figures, mistakes=[_mistake()], ceiling=0.5)
  for heading in (
    *('Each class', 'Confusion matrix', 'Learning curves', 'Further figures', 'Worst mistakes'),
    *('How the data were split', 'Run', 'Configuration', 'Versions'),
  ):
    assert heading in shown.text
  accuracy, floor = values['metrics']['accuracy'], values['floor']['metrics']['accuracy']
  low, high = values['intervals']['accuracy']
  assert f'{100 * accuracy:.1f} %' in shown.texts
  assert f'{100 * floor:.1f} %' in shown.texts
  assert f'{100 * low:.1f} to {100 * high:.1f} %' in shown.texts
  assert 'n = 60 images' in shown.texts
  assert f'{100 * values["metrics"]["recall/bad"]:.1f} %' in shown.texts
  assert '1,234' in shown.texts
  assert 'bad 93.0 %' in shown.texts
  assert shown.tags.count('img') == 6  # matrix, curves, k-shot, scale, picture, overlay


def test_answers_that_were_all_right_are_called_so():
  right = dataclasses.replace(_mistake(), true='bad')
  alone = _page(_full(), mistakes=[right]).text
  assert 'No mistakes: the least certain answers (1)' in alone
  assert 'then good 5.0 %' in alone
  assert 'true: bad' not in alone
  both = _page(_full(), mistakes=[right, _mistake()]).text
  assert 'Worst mistakes' in both
  assert 'No mistakes' not in both


def test_how_intervals_were_made_stands_below_and_not_in_the_cards():
  text = _page(_full()).text
  assert text.index('the figure to tell') < text.index('accuracy, recall: Wilson')
  assert re.search(r'macro f1[\w, ]*: bootstrap over images', text)
  assert '95 % interval, ' not in text


def test_a_perfect_figure_beside_the_accuracy_has_no_card():
  labels = np.repeat([0, 1], 5)
  margin = np.where(labels == 1, 2.0, 1.0)  # ranked right, and all called the second class
  scores = np.stack([np.zeros(10), margin], axis=1)
  predictions = ClassScores(scores, np.exp(scores) / np.exp(scores).sum(1, keepdims=True))
  values = classification.evaluate(predictions, labels, ('good', 'bad'), num_resamples=50)
  assert values['metrics']['auroc'] == 1
  assert values['metrics']['accuracy'] == 0.5
  assert classification.adds_nothing(values, 'auroc')
  assert not classification.adds_nothing(values, 'macro_f1')
  assert 'Macro F1' in _page(values).text
  assert 'AUROC, one against rest' not in _page(values).text
  right = classification.evaluate(
    ClassScores(np.eye(2)[labels], np.eye(2)[labels]), labels, ('good', 'bad'), num_resamples=50
  )
  assert classification.adds_nothing(right, 'macro_f1')
  assert 'Macro F1' not in _page(right).text
  assert 'AUROC, one against rest' not in _page(right).text


def test_page_is_self_contained():
  shown = _page(_full(), mistakes=[_mistake()], ceiling=0.5)
  assert not {'script', 'link', 'iframe', 'object'} & set(shown.tags)
  links = [value for name, value in shown.attributes if name in ('src', 'href', 'srcset')]
  assert links
  assert all(value.startswith('data:image/png;base64,') for value in links)
  assert not [name for name, _ in shown.attributes if name.startswith('on')]
  assert 'http' not in page.STYLE
  assert '@import' not in page.STYLE


def test_everything_is_escaped():
  text = report.html(
    _full(),
    title=f'run {EVIL}',
    figures=[(EVIL, plots.k_shot_curve({}))],
    mistakes=[_mistake(False)],
  )
  assert '<script' not in text
  shown = Page(text)
  # Title twice, warning, class names, floor, split, config, versions, mistake: all as text.
  assert shown.text.count('<script>alert("x")</script>') >= 12
  assert any(EVIL in value for name, value in shown.attributes if name == 'alt')


def test_markup_is_never_made_by_accident():
  assert page.tag('b', '<i>') == '<b>&lt;i&gt;</b>'
  assert page.tag('b', page.tag('i', '&'), title='"') == '<b title="&quot;"><i>&amp;</i></b>'
  assert '&lt;b&gt;' in page.table(('<b>',), [('<b>',)])
  assert type(page.join(['a', '<'])) is page.Markup


def test_parts_that_are_missing_are_not_shown():
  shown = _page({'metrics': {}})
  assert 'nothing was evaluated' in shown.text
  assert not {'table', 'img', 'details'} & set(shown.tags)
  assert 'Run' not in shown.texts


def test_seeds_that_agree_have_the_interval_of_one_of_them():
  def run(recall):
    ends = {'recall/a': [0.6, 1.0], 'recall/b': [0.1, 0.9]}
    return {
      'metrics': {'recall/a': 1.0, 'recall/b': recall},
      'intervals': ends,
      'interval_kinds': dict.fromkeys(ends, 'wilson'),
      'classes': ['a', 'b'],
      'support': {'a': 4, 'b': 4},
    }

  shown = _page(classification.aggregate([run(0.5), run(0.75)]))
  assert "Student's t over seeds; where the seeds agree, of one of them: Wilson" in shown.text
  assert '60.0 to 100.0' in shown.text


def test_several_seeds_are_reported_as_such():
  values = classification.aggregate([_scores(seed) for seed in range(3)])
  shown = _page(values)
  assert '180 test images in 3 seeds' in shown.text
  assert f'mean of 3 seeds, sd {100 * values["sd"]["accuracy"]:.1f}' in shown.text
  assert "Student's t over seeds" in shown.text
  # One seed has no interval, and the page says nothing about one.
  alone = _page(classification.aggregate([_scores()]))
  assert 'mean of 1 seeds' in alone.text


def test_absent_class_is_named():
  scores = np.array([[1.0, 0.0, 0.0]] * 4)
  values = classification.evaluate(ClassScores(scores, scores), np.zeros(4, int), 'abc')
  assert 'No test image of: b, c.' in _page(values).text


def test_files_agree(tmp_path):
  path = report.write_report(tmp_path / 'new', _full(), title='run')
  assert path == tmp_path / 'new' / 'report.html'
  assert sorted(p.name for p in path.parent.iterdir()) == ['report.html', 'report.json']
  read = json.loads((path.parent / 'report.json').read_text('utf-8'))
  assert read == report.plain(_full())
  assert read['config']['data']['image_size'] == [32, 32]
  assert read['train_seconds'] == 12.5
  assert path.read_text('utf-8') == report.html(_full(), title='run')


def test_json_has_no_nan(tmp_path):
  report.write_json(tmp_path / 'r.json', {'metrics': {'a': float('nan'), 'b': np.float32('inf')}})
  text = (tmp_path / 'r.json').read_text()
  assert json.loads(text) == {'metrics': {'a': None, 'b': None}}
  assert 'NaN' not in text


def test_what_is_no_number_is_not_shown():
  values = _full()
  values['metrics'] |= {'accuracy': float('nan'), 'auroc': float('inf')}
  values['intervals'] |= {name: [float('nan'), 1.0] for name in values['intervals']}
  shown = report.html(values, title='run').lower()
  assert not [word for word in ('>nan', '>none', '>inf', 'nan %') if word in shown]


def test_names_that_are_no_text_do_not_cost_the_report(tmp_path):
  name = os.fsdecode(b'bad\xff.png')
  report.write_report(tmp_path, {'metrics': {}, 'left': name, 'warnings': [name]}, title='run')
  assert json.loads((tmp_path / 'report.json').read_text('utf-8'))['left'] == name


def test_a_failure_leaves_the_old_report(tmp_path, monkeypatch):
  report.write_report(tmp_path, {'metrics': {'accuracy': 0.5}}, title='old')
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

  def full(_):
    raise OSError('no space left')

  monkeypatch.setattr(report.os, 'fsync', full)
  with pytest.raises(OSError, match='no space'):
    report.write_report(tmp_path, {'metrics': {'accuracy': 0.9}}, title='new')
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rejects_a_report_without_metrics(tmp_path):
  with pytest.raises(ValueError, match='metrics'):
    report.write_report(tmp_path / 'new', {'n': 3}, title='run')
  assert not (tmp_path / 'new').exists()


def _boxes(seed: int = 0, classes: tuple[str, ...] = ('good', EVIL, 'absent')) -> dict:
  """Report of a detector that finds most of 40 boxes on 30 images."""
  generator = np.random.default_rng(seed)
  corner = generator.uniform(0, 60, (30, 2, 2))
  true = np.concatenate([corner, corner + 30], axis=-1)
  label = generator.integers(2, size=(30, 2))
  kept = np.arange(60).reshape(30, 2) % 3 > 0
  found = true + generator.normal(size=true.shape) * 2
  truth = {'boxes': true, 'box_label': label, 'box_valid': kept, 'scale': np.ones(30)}
  scores = np.sort(generator.random((30, 2)), axis=1)[:, ::-1]
  predictions = Detections(found, scores, label, generator.random((30, 2)) < 0.9)
  return average_precision.evaluate(predictions, truth, classes, num_resamples=50)


def _drawn() -> DrawnMistake:
  image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  return DrawnMistake(image, f'{EVIL} 0.93', f'marked as {EVIL}', 0.25, EVIL)


def test_detection_page_holds_every_part():
  values = _boxes() | {'seed': 7, 'config': {'steps': 3}}
  metrics, intervals = values['metrics'], values['intervals']
  records = [{'step': 1, 'loss': 1.0, 'box': 0.5}, {'step': 2, 'validation/map50': 0.5}]
  shown = _page(values, records=records, misses=[_drawn()], false_alarms=[_drawn()] * 2)
  for heading in (
    *('Each class', 'Precision against recall', 'Learning curves', 'Worst misses'),
    *('Worst false alarms', 'Run', 'Configuration'),
  ):
    assert heading in shown.text
  for name in ('map50', 'map', 'recall_at_1_fp', 'ap50/good', f'ap/{EVIL}'):
    assert f'{100 * metrics[name]:.1f} %' in shown.texts, name
  low, high = intervals['map50']
  assert f'{100 * low:.1f} to {100 * high:.1f} %' in shown.texts
  low, high = intervals[f'ap50/{EVIL}']
  assert f'{100 * low:.1f} to {100 * high:.1f}' in shown.texts
  assert '30 test images with 40 boxes' in shown.text
  assert 'n = 30 images' in shown.texts
  assert 'No test box of: absent.' in shown.text
  assert 'if they score 0.25 or more' in shown.text
  assert shown.tags.count('img') == 5  # curves twice, a miss, two false alarms
  assert shown.text.count('<script>alert("x")</script>') >= 10
  assert 'confusion' not in shown.text.lower()
  assert 'precision recall' not in shown.text  # the arrays are not listed under 'Run'


def test_detection_page_of_several_seeds():
  values = classification.aggregate([_boxes(seed) for seed in range(3)])
  shown = _page(values)
  assert '90 test images with 120 boxes in 3 seeds' in shown.text
  assert f'mean of 3 seeds, sd {100 * values["sd"]["map50"]:.1f}' in shown.text
  assert "Student's t over seeds" in shown.text
  assert 'mean of 3 seeds (0 where' in shown.text
  _page(classification.aggregate([_boxes()]))


def test_detection_page_of_negatives_says_so():
  truth = {
    **{'boxes': np.zeros((2, 0, 4)), 'box_label': np.zeros((2, 0), int)},
    **{'box_valid': np.zeros((2, 0), bool), 'scale': np.ones(2)},
  }
  none = Detections(np.zeros((2, 0, 4)), np.zeros((2, 0)), np.zeros((2, 0), int), np.zeros((2, 0)))
  shown = _page(average_precision.evaluate(none, truth, ('a',)))
  assert 'no test image holds a box' in shown.text
  assert 'img' not in shown.tags


def test_detection_report_is_written_whole(tmp_path):
  values = _boxes()
  path = report.write_report(tmp_path, values, title='run', misses=[_drawn()])
  assert json.loads((tmp_path / 'report.json').read_text('utf-8')) == report.plain(values)
  assert path.read_text('utf-8') == report.html(values, title='run', misses=[_drawn()])


def test_localisation_is_shown_with_its_interval(tmp_path):
  found = {
    'metrics': {'pointing_game': 0.5, 'pixel_auroc': 0.8, 'chance': 0.1},
    'intervals': {'pointing_game': [0.3, 0.7], 'pixel_auroc': [0.75, 0.85]},
    'n': 20,
    'left_out': 0,
  }
  text = report.html({'metrics': {'accuracy': 0.5}, 'localisation': found}, title='t')
  assert 'Where the evidence lies' in text
  assert '30.0 to 70.0' in text
  nothing = {**found, 'metrics': {}}
  text = report.html({'metrics': {'accuracy': 0.5}, 'localisation': nothing}, title='t')
  assert 'Where the evidence lies' not in text
