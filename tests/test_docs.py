"""What the pages say is there: links, headings, commands, settings, and a site that builds."""

import doctest
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
import urllib.parse

import pytest
from absl import flags

from jaxdefect.__main__ import launchers, main
from launch import command

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md')),
  *sorted((ROOT / 'docs').rglob('*.md')),
  *sorted((ROOT / 'notebooks').glob('*.ipynb')),
]
# Whom a page may send a reader to.
HOSTS = {
  'arxiv.org',
  'cloud.google.com',
  'docs.nvidia.com',
  'download.pytorch.org',
  'github.com',
  'jax-ml.github.io',
  'www.nvidia.com',
}
FENCE = re.compile(r'^( *)```(\w*).*?\n(.*?)^\1```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')
VERBS = launchers(ROOT / 'launch')


def text_of(path: pathlib.Path) -> str:
  """A page, or the Markdown of a notebook."""
  if path.suffix != '.ipynb':
    return path.read_text()
  cells = json.loads(path.read_text())['cells']
  return '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


@functools.cache
def anchors(path: pathlib.Path) -> set[str]:
  """The headings of a page, as GitHub and the site's ``toc.slugify`` name them."""
  found: set[str] = set()
  for title in re.findall(r'^#+ (.+)$', FENCE.sub('', text_of(path)), re.MULTILINE):
    slug = re.sub(r'[^\w\- ]', '', title.strip().lower()).replace(' ', '-')
    number = next(n for n in range(1000) if (f'{slug}-{n}' if n else slug) not in found)
    found.add(f'{slug}-{number}' if number else slug)
  return found


def broken_links(text: str, page: pathlib.Path) -> list[str]:
  """What the links of a page do against the rules, one sentence each."""
  found = []
  for target in LINK.findall(re.sub(r'`[^`\n]*`', '', FENCE.sub('', text))):
    parts = urllib.parse.urlsplit(target)
    if parts.scheme or parts.netloc:
      if parts.scheme != 'https' or parts.netloc not in HOSTS:
        found.append(f'{target}: not https, or a host that is not in HOSTS')
      continue
    file = (page.parent / parts.path).resolve() if parts.path else page
    if not file.exists():
      found.append(f'{target}: there is no such file')
    elif parts.fragment and parts.fragment not in anchors(file):
      found.append(f'{target}: there is no such heading')
  return found


def commands(text: str) -> list[list[str]]:
  """The shell lines of a page that call us: verb and flags."""
  fenced = [body for _, language, body in FENCE.findall(text) if language in ('sh', 'bash', '')]
  indented = re.findall(r'^ {4}python -m .*(?:(?<=\\)\n.*)*', FENCE.sub('', text), re.MULTILINE)
  lines = '\n'.join(fenced + indented).replace('\\\n', ' ').splitlines()
  called = [re.search(r'(?:python -m launch\.|(?<![\w/-])jaxdefect )(\w.*)', one) for one in lines]
  return [shlex.split(one[1], comments=True) for one in called if one]


@functools.cache
def flags_of(verb: str) -> set[str]:
  values = flags.FlagValues()
  importlib.import_module(f'launch.{verb}').define(values)
  return {*values, 'help'} | {f'no{name}' for name in values if values[name].boolean}


def wrong_with(words: list[str]) -> list[str]:
  """What a command names that does not exist: its verb, flags, config, keys and variant."""
  verb, *rest = words
  if verb not in VERBS:
    return [f'there is no verb {verb}']
  found, keys = [], None
  for word in rest:
    name, _, value = word.partition('=')
    name = name.removeprefix('--')
    if name.startswith('config.'):
      key = name.removeprefix('config.')
      if keys is not None and key not in keys:
        found.append(f'{verb}: the config has no key {key}')
    elif word.startswith('--') and name not in flags_of(verb):
      found.append(f'{verb}: there is no flag --{name}')
    elif name == 'config' and not value.isupper():
      file, colon, variant = value.partition(':')
      path = command.CONFIGS / f'{pathlib.Path(file).stem}.py'
      if not path.is_file():
        return [f'{verb}: there is no config {value}']
      keys = command.flatten(command.load_config(f'{path}{colon}{variant}'))
  return found


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  assert broken_links(text_of(page), page) == []


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_begins_with_a_comment(page):
  """It would end the paragraph, where Markdown is shown as CommonMark."""
  assert not re.search(r'^<!-- score', text_of(page), re.MULTILINE)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_name_what_exists(page):
  assert [said for words in commands(text_of(page)) for said in wrong_with(words)] == []
  for module in re.findall(r'python -m (benchmarks|launch)\.(\w+)', text_of(page)):
    assert ROOT.joinpath(*module).with_suffix('.py').is_file(), module


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_exist(page):
  text = text_of(page)
  # Those that the page itself would add.
  own = {*re.findall(r'^```python title="configs/(\w+)\.py"$', text, re.MULTILINE)}
  for stem in {*re.findall(r'configs/(\w+)\.py', text)} - own:
    assert (ROOT / 'configs' / f'{stem}.py').is_file(), stem


def test_configs_of_the_table_of_methods_exist():
  rows = re.findall(r'^\| `\w+` \|.*?\| `([\w{},]+)\.py` \|', text_of(PAGES[0]), re.MULTILINE)
  assert rows
  for stem in rows:
    start, _, ends = stem.rstrip('}').partition('{')
    for end in ends.split(','):
      assert (ROOT / 'configs' / f'{start}{end}.py').is_file(), stem


@pytest.mark.parametrize(
  'text',
  [
    '[a](nowhere.md)',
    '[a](architecture.md#no-such-heading)',
    '[a](http://arxiv.org/abs/1)',
    '[a](https://example.com)',
  ],
)
def test_a_broken_link_is_found(text):
  assert len(broken_links(text, ROOT / 'docs' / 'index.md')) == 1


@pytest.mark.parametrize(
  ('line', 'said'),
  [
    ('jaxdefect trian', 'no verb'),
    ('python -m launch.train --workdri=a', 'no flag'),
    ('jaxdefect train --config=nothing_folder', 'no config'),
    ('jaxdefect train --config=patchcore_folder \\\n  --config.data.dri=a', 'no key'),
  ],
)
def test_a_wrong_command_is_found(line, said):
  found = [one for words in commands(f'```sh\n{line}\n```') for one in wrong_with(words)]
  assert len(found) == 1
  assert said in found[0]


RESEARCH = ROOT / 'docs' / 'research_api.md'


def test_examples_of_the_research_page_hold():
  text = FENCE.sub(lambda fence: f'\n{fence[3]}\n', RESEARCH.read_text())
  examples = doctest.DocTestParser().get_doctest(text, {}, RESEARCH.name, str(RESEARCH), 0)
  printed: list[str] = []
  results = doctest.DocTestRunner().run(examples, out=printed.append)
  assert results.failed == 0, ''.join(printed)
  assert results.attempted > 40


def test_every_example_of_the_research_page_is_run():
  for _, language, body in FENCE.findall(RESEARCH.read_text()):
    assert language == 'pycon'
    assert body.startswith('>>> ')


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('site')
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return folder


def test_site_builds_without_a_warning(site):
  for page in ('index', 'quick_start', 'results', 'api/ops', 'notebooks/maml_in_ten_lines'):
    assert (site / f'{page}.html').is_file(), page
  assert (site / 'results' / 'R1' / 'approved.png').is_file()
  assert not [*site.rglob('*.json.html'), *(site / 'results').rglob('*.json')]


def test_site_fetches_nothing_from_elsewhere(site):
  fetched = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="?https?:|<link[^>]*stylesheet[^>]*https?:'
  )
  for page in site.rglob('*.html'):
    assert not fetched.search(page.read_text()), page


def test_site_shows_every_method_and_no_directive(site):
  page = (site / 'api' / 'methods.html').read_text()
  for path in (ROOT / 'jaxdefect' / 'methods').glob('[a-z]*.py'):
    assert f'id="jaxdefect.methods.{path.stem}.make"' in page, path
  for page in (site / 'api').glob('*.html'):
    assert not re.search(r'\.\. math::|:(?:math|func|class|meth|data):`', page.read_text()), page


def hook(name: str) -> types.ModuleType:
  path = ROOT / 'docs' / 'hooks' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_docstrings_become_markdown():
  markdown = hook('docstrings').markdown
  made = markdown('As :func:`nms` of `SSD <https://arxiv.org/abs/1>`_.\n\n>>> 1 + 1\n2')
  assert made == 'As `nms` of [SSD](https://arxiv.org/abs/1).\n\n```pycon\n>>> 1 + 1\n2\n```'
  made = markdown('.. math::\n  x_1 = \\frac{a}{2}\n\nwith :math:`a` above 0.')
  assert made.startswith('<math')
  assert '<mfrac>' in made
  assert '_' not in made
  assert 'with <span><math' in made
  assert markdown('a\n\n== ==\nx  y\n== ==').count('```') == 2


def test_notebooks_become_pages():
  cells = [
    {'cell_type': 'markdown', 'source': ['# Title\n', '\n', '[a](../docs/a.md)']},
    {
      **{'cell_type': 'code', 'source': 'show()'},
      'outputs': [
        {'name': 'stdout', 'text': ['1\n', '2\n']},
        {'name': 'stderr', 'text': 'warning'},
        {'data': {'image/png': 'aGVsbG8=', 'text/plain': '<Figure>'}},
        {'data': {'text/plain': "'said'"}},
      ],
    },
  ]
  text, pictures = hook('pages').page({'cells': cells}, 'one')
  assert pictures == {'one_0.png': b'hello'}
  assert text == (
    '# Title\n\nA notebook: [one.ipynb](one.ipynb).\n\n[a](../a.md)\n\n```python\nshow()\n```\n\n'
    "```text\n1\n2\n```\n\n![what the cell above shows](one_0.png)\n\n```text\n'said'\n```\n"
  )


def test_scores_stay_in_their_sentence():
  made = hook('pages').on_page_markdown('in\n<!-- score: A; b; c -->5 %<!-- end --> of all')
  assert made == 'in\n5 % of all'


def test_listing_of_the_verbs_may_be_cut_short(monkeypatch):
  reads, writes = os.pipe()
  os.close(reads)
  with os.fdopen(writes, 'w') as closed:
    monkeypatch.setattr(sys, 'stdout', closed)
    monkeypatch.setattr(sys, 'argv', ['jaxdefect'])
    main()  # as in 'jaxdefect | head -1': no traceback
