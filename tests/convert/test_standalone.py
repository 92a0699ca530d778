"""What is exported runs where there is no jaxdefect: beside torch alone, and onnxruntime alone.

The environments are made of the files of the installed distributions and of what they require, and
of nothing else; a process that gets no other path cannot find more.
"""

import ast
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxdefect import methods
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.convert import examples, export, exported, onnx_file, to_onnx, twins
from jaxdefect.data import decode

pytest.importorskip('jaxdefect.methods.hybrid')
pytest.importorskip('jaxdefect.methods.classifier')
pytest.importorskip('jaxdefect.methods.patchcore')

TWINS = pathlib.Path(twins.__file__).parent
SIZE = 48


def requirements(name: str) -> set[str]:
  """A distribution and all that it requires here, extras and other platforms left out."""
  found, left = set(), [name]
  while left:
    one = left.pop()
    if one in found:
      continue
    try:
      needed = metadata.requires(one) or []
    except metadata.PackageNotFoundError:
      continue  # for another platform
    found.add(one)
    left += [re.split(r'[^\w.-]', text)[0].lower() for text in needed if ';' not in text]
  return found


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
  """Names of distributions -> a folder that holds these alone, for ``python -I -S``."""

  def make(*names):
    folder = tmp_path_factory.mktemp('site')
    for one in set().union(*map(requirements, names)):
      for file in metadata.files(one) or []:
        top = file.parts[0]
        place = folder / top
        if top not in ('..', '__pycache__') and not place.is_symlink():
          place.symlink_to(pathlib.Path(str(metadata.distribution(one).locate_file(top))))
    assert not (folder / 'jax').exists()
    assert not (folder / 'jaxdefect').exists()
    return folder

  return make


def run(script: str, *arguments: str, site: pathlib.Path, cwd: pathlib.Path) -> str:
  """Runs a file of the export with nothing but ``site`` and the export's folder to import from."""
  code = (
    f'import runpy, sys; sys.path[:0] = [{str(site)!r}, "."]; '
    f'sys.argv = {[script, *arguments]!r}; runpy.run_path({script!r}, run_name="__main__")'
  )
  command = [sys.executable, '-I', '-S', '-c', code]
  done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A hybrid of random weights, exported to both, and a picture."""
  method = methods.load('hybrid')(
    **{'backbone': 'resnet18', 'stages': 2, 'width': 8},
    anomaly={'name': 'patchcore', 'layers': (1, 2), 'coreset': 0.4, 'projection': 8},
  )
  import jax

  generator = np.random.default_rng(0)
  batch = {
    'image': generator.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8),
    'label': np.array([0, 1, 1, 2], np.int32),
    'valid': np.ones(4, bool),
    'index': np.arange(4, dtype=np.int32),
  }
  classes = ('bent', 'good', 'stained')
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
  start = to_fitted(method.init(jax.random.key(0), DataSpec(shapes, classes, (1, 2, 1))), classes)
  fitted = method.adapt(jax.random.key(1), start, References(classes, [batch]))
  out = tmp_path_factory.mktemp('export') / 'model'
  calibration = {'threshold': np.float32(1.0), 'scores': np.linspace(0, 2, 9, dtype=np.float32)}
  deployment = export.complete(
    method.deploy(fitted), image_size=(SIZE, SIZE), calibration=calibration
  )

  def add(path, module, described):
    to_onnx.write(path / 'model.onnx', module, described)
    (path / 'example_onnx.py').write_text(examples.ONNX)

  details = {'data': {'sixteen_bit_range': (100, 4195)}}
  export.write(out, *deployment, details=details, add=add)
  Image.fromarray(generator.integers(0, 256, (70, 91, 3), np.uint8)).save(out / 'part.png')
  Image.fromarray(generator.integers(0, 6000, (70, 91), np.uint16)).save(out / 'deep.png')
  Image.fromarray(generator.integers(0, 256, (70, 91, 4), np.uint8)).save(out / 'clear.png')
  return out


def test_the_examples_say_the_same_in_environments_of_their_own(folder, environment):
  said, words = {}, {}
  for script, names in (
    ('example.py', ('torch', 'pillow')),
    ('example_onnx.py', ('onnxruntime', 'pillow')),
  ):
    printed = run(script, 'part.png', 'deep.png', site=environment(*names), cwd=folder)
    found = re.findall(r'(\w+)\.png (ok|review|reject)\n((?:  .*\n)+)', printed)
    assert [name for name, *_ in found] == ['part', 'deep'], printed
    words[script] = [word for _, word, _ in found]
    lines = (line.strip().split(': ', 1) for line in found[0][2].splitlines())
    said[script] = {name: ast.literal_eval(value) for name, value in lines}
  assert words['example.py'] == words['example_onnx.py']
  one, other = said.values()
  assert one.pop('classes') == other.pop('classes')
  assert one.keys() == other.keys() == set(twins.Hybrid.outputs) - {'maps'}
  for name, value in one.items():
    np.testing.assert_allclose(other[name], value, rtol=2e-3)  # four digits are printed


def test_either_file_can_be_opened_by_us(folder):
  pixels = np.asarray(Image.open(folder / 'part.png'))
  sides = [
    exported.run(exported.open_model(path), [pixels, pixels[:20], pixels[:20]])
    for path in (folder, folder / 'model.onnx')
  ]
  for name in twins.Hybrid.outputs:
    np.testing.assert_allclose(sides[0][name], sides[1][name], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(sides[0][name][1], sides[0][name][2])


def test_the_examples_read_pictures_as_the_run_did(folder):
  """Of any depth, by the function in the text itself; and what they decide is said in words."""
  described = {'data': {'sixteen_bit_range': (100, 4195)}, 'classes': ['bent', 'good']}
  scope = {'Image': Image, 'ImageOps': ImageOps, 'described': described, 'sys': sys}
  (folder / 'cut.png').write_bytes((folder / 'part.png').read_bytes()[:999])
  for text in (examples.TORCH, examples.ONNX):
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    exec(compile(ast.Module(functions, []), 'example', 'exec'), scope)
    for name in ('part.png', 'deep.png', 'clear.png'):
      ours = decode.read_image(folder / name, sixteen_bit_range=(100, 4195))
      found = np.asarray(scope['read'](folder / name))
      np.testing.assert_array_equal(found, np.broadcast_to(ours, found.shape))
    for said, word in (
      ({'scores': [0.1, 0.9], 'probabilities': [0.3, 0.7]}, 'good (70.0 %)'),
      ({'scores': 3.0, 'flagged': True}, 'flagged'),
      ({'scores': [0.1, 0.9], 'verdict': 2}, 'reject'),
      ({'boxes': [], 'scores': [], 'labels': [1, 0], 'valid': [True, False]}, ['good']),
    ):
      assert scope['decision'](said) == word
    with pytest.raises(SystemExit, match=r'cut\.png cannot be read: '):
      scope['read'](folder / 'cut.png')
    body = [line for line in text.splitlines() if line.strip()]
    assert len(body) <= 50


def test_the_code_is_whole_and_imports_torch_alone(folder):
  tree = ast.parse((folder / 'model.py').read_text())
  imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
  names = {(getattr(node, 'module', None) or node.names[0].name).split('.')[0] for node in imports}
  assert names - set(sys.stdlib_module_names) == {'torch'}
  tops = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
  assert 'Hybrid' in tops
  assert 'MobileNetV2' not in tops  # what this model does not need


def test_names_are_used_once_over_all_files_of_the_twins():
  owner = {}
  for path in sorted(TWINS.glob('*.py')):
    if path.name == '__init__.py':
      continue
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.ClassDef | ast.FunctionDef):
        names = [node.name]
      elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
      else:
        continue
      for name in names:
        assert owner.setdefault(name, path.name) == path.name, f'{name} is in two files'


def test_the_graph_is_a_valid_one_that_says_what_it_is(folder):
  import onnx

  model = onnx.load(folder / 'model.onnx')
  onnx.checker.check_model(model, full_check=True)
  assert model.producer_name == 'jaxdefect'
  assert {one.version for one in model.opset_import if one.domain == ''} == {to_onnx.OPSET}
  shape = model.graph.input[0].type.tensor_type.shape.dim
  assert [side.dim_param or side.dim_value for side in shape] == ['batch', 'height', 'width', 3]
  described = onnx_file.OnnxModel(folder / 'model.onnx').described
  assert described['opset'] == to_onnx.OPSET
  assert described['family'] == 'hybrid'


def test_a_fixed_shape_is_kept_to(folder, tmp_path):
  module = twins.load(folder)
  to_onnx.write(tmp_path / 'a.onnx', module, module.described, static=(2, 70, 91))
  model = exported.open_model(tmp_path / 'a.onnx')
  pixels = np.asarray(Image.open(folder / 'part.png'))
  three = exported.run(model, [pixels] * 3)  # one batch and a half
  free = exported.run(exported.open_model(folder), [pixels] * 3)
  np.testing.assert_allclose(three['scores'], free['scores'], rtol=1e-4)
  with pytest.raises(ValueError, match=r'takes pictures of 70 x 91 pixels .* this one has 35 x 91'):
    exported.run(model, [pixels[::2]])
