"""The notebooks hold no outputs, run from top to bottom, and show what they claim."""

import json
import pathlib
import re

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'notebooks'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
  notebook = json.loads(path.read_text())
  nbformat.validate(notebook)
  for cell in notebook['cells']:
    assert cell['metadata'] == {}
    assert not cell.get('outputs')
    assert cell.get('execution_count') is None
  assert set(notebook['metadata']) == {'kernelspec', 'language_info'}
  assert notebook['metadata']['language_info'] == {'name': 'python'}


def run(name: str, tmp_path: pathlib.Path, monkeypatch) -> tuple[str, int]:
  """What a notebook printed, and how many pictures it showed."""
  # Compiled programs are kept where those of the tests are.
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(FOLDER.parent / '.jax_cache'))
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  notebook = nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)
  resources = {'metadata': {'path': str(tmp_path)}}
  nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', ())]
  printed = ''.join(o['text'] for o in outputs if o.get('name') == 'stdout')
  return printed, sum('image/png' in o.get('data', {}) for o in outputs)


def numbers(pattern: str, printed: str) -> list[float]:
  """The numbers of the line that begins like this."""
  line = re.search(rf'^{pattern}.*$', printed, re.MULTILINE)
  assert line, printed
  return [float(number) for number in re.findall(r'-?\d+\.\d+', line[0])]


def test_first_model_learns(tmp_path, monkeypatch):
  printed, pictures = run('your_first_defect_model', tmp_path, monkeypatch)
  accuracy, low, high = numbers('accuracy', printed)
  assert low <= accuracy <= high
  assert low > 0.5  # a guess finds a quarter
  assert pictures == 2


def test_good_parts_are_enough(tmp_path, monkeypatch):
  printed, pictures = run('anomaly_from_good_parts', tmp_path, monkeypatch)
  assert numbers('auroc', printed)[1] > 0.6
  assert numbers('miss_rate', printed)[0] < 0.5
  assert numbers('false_alarm_rate', printed)[0] < 0.3
  assert pictures == 2


def test_second_order_is_the_derivative_and_learns_more(tmp_path, monkeypatch):
  printed, pictures = run('maml_in_ten_lines', tmp_path, monkeypatch)
  numeric, exact, short = numbers('differences', printed)
  assert exact == pytest.approx(numeric, rel=1e-3)
  assert abs(short - numeric) > 0.01 * abs(numeric)
  second, first = (numbers(f'{order} order', printed)[1] for order in ('second', 'first'))
  assert second < first
  assert pictures == 1
