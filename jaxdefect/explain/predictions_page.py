"""``predictions.html``: what was said of each picture, beside its overlay, on one page."""

import collections
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdefect.explain import page
from jaxdefect.explain.page import Markup, tag


def html(
  rows: Sequence[Mapping[str, Any]],
  drawn: Mapping[str, str],
  *,
  title: str,
  legend: str = '',
  unreadable: Mapping[str, str] | None = None,
) -> str:
  """The page as text: no script; it shows files that lie beside it, and loads them as one scrolls.

  Args:
    rows: of ``predictions.json``: ``image``, and ``verdict``, ``class`` or ``detections`` with
      further plain values; shown by their ``probability``, smallest first, where they have one.
    drawn: image -> path of its overlay, from the page.
    title: heading.
    legend: path of a picture of the overlays' colour scale; '' for none.
    unreadable: image -> why it could not be read.

  Returns:
    The document.
  """
  counts = collections.Counter(_said(row) for row in rows)
  order = ''
  if rows and all('probability' in row for row in rows):
    rows = sorted(rows, key=lambda row: row['probability'])
    order = ', the least certain first. A sure answer may be wrong too.'
  body = [tag('h1', title), tag('p', f'{len(rows):,} pictures{order}', class_='quiet')]
  if unreadable:
    items = (tag('li', reason) for reason in unreadable.values())
    heading = tag('strong', f'Pictures that could not be read: {len(unreadable):,}')
    body.append(tag('div', heading, tag('ul', *items), class_='warnings', role='note'))
  body.append(page.table(('said', 'pictures'), [(k, f'{n:,}') for k, n in counts.most_common()]))
  if legend:
    body.append(tag('figure', _image(legend, 'colour scale of the overlays')))
  body.append(
    tag('div', *(_figure(row, drawn.get(row['image'])) for row in rows), class_='mistakes')
  )
  return page.document(title, *body)


def _said(row: Mapping[str, Any]) -> str:
  """The one word that counts most: the verdict, the class, or which boxes there are."""
  if 'detections' in row:
    found = collections.Counter(one['class'] for one in row['detections'])
    return ', '.join(f'{count} {name}' for name, count in found.most_common()) or 'no box'
  return str(row['verdict'] if 'verdict' in row else row['class'])


def _figure(row: Mapping[str, Any], path: str | None) -> Markup:
  said = _said(row)
  plain = {k: v for k, v in row.items() if k != 'image' and not isinstance(v, Mapping | list)}
  values = ', '.join(
    f'{name.replace("_", " ")} {_number(name, value) if isinstance(value, float) else value}'
    for name, value in plain.items()
    if value != said
  )
  caption = [tag('b', said), tag('div', values), tag('div', row['image'], class_='name')]
  pictures = [_image(path, f'{row["image"]}: {said}')] if path else []
  return tag('figure', *pictures, tag('figcaption', *caption))


def _number(name: str, value: float) -> str:
  sure = name == 'probability' and value > 0.9999  # it may have been rounded to 1
  return '> 0.9999' if sure else f'{value:.4g}'


def _image(path: str, alt: str) -> Markup:
  source = page.text(urllib.parse.quote(path))
  return Markup(f'<img src="{source}" alt="{page.text(alt)}" loading="lazy">')
