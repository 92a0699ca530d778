"""The pages of the site: those of docs/, and one for each of notebooks/, its code and what it said.

Committed notebooks hold no outputs. With RUN_NOTEBOOKS=true each is run, and the page shows them.
Links between docs/ and notebooks/ are written so that they work in the checkout.
"""

import base64
import json
import pathlib
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = pathlib.Path(__file__).parent.parent.parent / 'notebooks'


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages and their pictures, and the notebooks themselves to download."""
  for path in sorted(FOLDER.glob('*.ipynb')):
    notebook = json.loads(path.read_text())
    if config.extra['run_notebooks']:
      notebook = _run(path)
    text, pictures = page(notebook, path.stem)
    files.append(File.generated(config, f'notebooks/{path.stem}.md', content=text))
    files.append(File.generated(config, f'notebooks/{path.name}', content=path.read_bytes()))
    for name, content in pictures.items():
      files.append(File.generated(config, f'notebooks/{name}', content=content))
  return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
  """Leads links to a notebook to its page, and leaves comments out."""
  del kwargs
  # At the start of a line a comment would end the paragraph.
  text = re.sub(r'<!--.*?-->', '', markdown)
  return re.sub(r'\]\(\.\./notebooks/(\w+)\.ipynb\)', r'](notebooks/\1.md)', text)


def page(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
  """A notebook as Markdown.

  Args:
    notebook: as its file holds it (nbformat 4).
    stem: name of its file, for the link and the pictures.

  Returns:
    The text, and PNG files by name.
  """
  parts, pictures = [], {}
  for cell in notebook['cells']:
    text = _text(cell['source']).replace('](../docs/', '](../')
    if cell['cell_type'] == 'markdown':
      parts.append(text)
      continue
    parts.append(f'```python\n{text}\n```')
    for output in cell['outputs']:
      data = output.get('data', {'text/plain': output.get('text', '')})
      if 'image/png' in data:
        name = f'{stem}_{len(pictures)}.png'
        pictures[name] = base64.b64decode(data['image/png'])
        parts.append(f'![what the cell above shows]({name})')
      elif output.get('name') != 'stderr':
        parts.append(f'```text\n{_text(data["text/plain"]).rstrip()}\n```')
  title, _, rest = '\n\n'.join(parts).partition('\n')
  return f'{title}\n\nA notebook: [{stem}.ipynb]({stem}.ipynb).\n{rest}\n', pictures


def _text(lines: str | list[str]) -> str:
  return lines if isinstance(lines, str) else ''.join(lines)


def _run(path: pathlib.Path) -> dict[str, Any]:
  import nbclient
  import nbformat

  notebook = nbformat.read(path, as_version=4)
  return nbclient.NotebookClient(notebook, resources={'metadata': {'path': path.parent}}).execute()
