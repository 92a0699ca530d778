"""Docstrings for the site: what they write in reStructuredText becomes Markdown and MathML.

Browsers set MathML without a script, so that the pages fetch nothing.
"""

import re
from typing import Any

import griffe
from latex2mathml import converter

_DISPLAYED = re.compile(r'( *)\.\. math::')
_INLINE = re.compile(r':math:`([^`]+)`')
_FUNCTION = re.compile(r'\\(?:cos|sin|log|exp)(?= *[\\A-Za-z])')
_ROLE = re.compile(r':[a-z]+:`~?([^`]+)`')
_LINK = re.compile(r'`([^`<>]+?)\s*<(https?://[^>]+)>`_')
_FENCES = {'pycon': re.compile(r' *>>> '), 'text': re.compile(r' *=+( +=+)+\n')}


def markdown(text: str) -> str:
  """A docstring with its few directives and roles of reStructuredText as Markdown.

  Args:
    text: as ``inspect.cleandoc`` leaves it. Tables, doctests and displayed equations are
      paragraphs of their own.

  Returns:
    Markdown, with equations as MathML.
  """
  return '\n\n'.join(_paragraph(one) for one in re.split(r'\n[ \t]*\n', text))


def _paragraph(text: str) -> str:
  indent = ' ' * (len(text) - len(text.lstrip(' ')))
  for language, begins in _FENCES.items():
    if begins.match(text):
      return f'{indent}```{language}\n{text}\n{indent}```'
  displayed = _DISPLAYED.match(text)
  if displayed:
    return indent + _mathml(text[displayed.end() :], display='block')
  text = _INLINE.sub(lambda found: _mathml(found[1], display='inline'), text)
  text = _ROLE.sub(r'`\1`', text)
  return _LINK.sub(lambda found: f'[{" ".join(found[1].split())}]({found[2]})', text)


def _mathml(latex: str, *, display: str) -> str:
  # MathML sets 'cos m' without a space.
  spaced = _FUNCTION.sub(r'\g<0>\\,', ' '.join(latex.split()))
  # Markdown would read these two as emphasis.
  made = converter.convert(spaced, display=display).replace('*', '&#x2A;').replace('_', '&#x5F;')
  # ... and a line that begins with <math> as a paragraph of its own.
  return made if display == 'block' else f'<span>{made}</span>'


class RestToMarkdown(griffe.Extension):
  """Rewrites every docstring before its sections are read."""

  def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
    """Called once for each module, class, function and attribute."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = markdown(obj.docstring.value)
