"""``predictions.html``: what was said of each picture, beside its overlay, on one page."""

import collections
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdefect.explain import page
from jaxdefect.explain.page import Markup, tag

_WORTH_SAYING = 0.01  # probability of the class that came second
_CALM = (
  'Where the colours are calm, or lie off the defect, little evidence was on it: the answer may be '
  'right, but look what else sets the classes apart (light, position, background).'
)


class Tested(NamedTuple):
  """What the test part says of one answer."""

  said: int  # test pictures that were called so
  wrong: Mapping[str, int]  # those of them that were of another class, by that class

  def __str__(self) -> str:
    if not self.said:
      return 'not said in the test'
    wrong = (f'{n} {"was" if n == 1 else "were"} {name}' for name, n in self.wrong.items())
    return '; '.join((self.right, *wrong))

  @property
  def right(self) -> str:
    """How many of how many: ``3 of 4``."""
    return f'{self.said - sum(self.wrong.values())} of {self.said}'


def tested(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Tested]:
  """Reads a confusion matrix by what was said, not by what was true.

  Args:
    confusion: [K, K] images, rows are true classes, columns predicted ones.
    classes: K names.

  Returns:
    class -> how often it was said in the test, and what it was then, most frequent first.
  """
  found = {}
  for j, said in enumerate(classes):
    column = {name: int(row[j]) for name, row in zip(classes, confusion)}
    wrong = sorted(
      ((name, n) for name, n in column.items() if n and name != said), key=lambda one: -one[1]
    )
    found[said] = Tested(sum(column.values()), dict(wrong))
  return found


def html(
  rows: Sequence[Mapping[str, Any]],
  drawn: Mapping[str, str],
  *,
  plain: Mapping[str, str] | None = None,
  title: str,
  legend: str = '',
  known: Mapping[str, Tested] | None = None,
  unreadable: Mapping[str, str] | None = None,
) -> str:
  """The page as text: no script; it shows files that lie beside it, and loads them as one scrolls.

  Args:
    rows: of ``predictions.json``: ``image``, and ``verdict``, ``class`` or ``detections`` with
      further plain values; shown by their ``probability``, smallest first, where they have one.
    drawn: image -> path of its overlay, from the page.
    plain: image -> path of the picture as it is, which stands beside its overlay.
    title: heading.
    legend: path of a picture of the overlays' colour scale; '' for none.
    known: class -> what the test part says of that answer; those that it found wrong at times are
      marked.
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
  lines = [(said, f'{n:,}') for said, n in counts.most_common()]
  head = ('said', 'pictures')
  if known and known.keys() >= counts.keys():
    head, lines = (
      (*head, 'right of those called so in the test'),
      [(*one, str(known[one[0]])) for one in lines],
    )
  body.append(page.table(head, lines))
  if legend:
    caption = [tag('figcaption', _CALM)] if order else []
    body.append(tag('figure', _image(legend, 'colour scale of the overlays'), *caption))
  given = (plain or {}, drawn)
  cards = (
    _figure(row, [paths[row['image']] for paths in given if row['image'] in paths], known or {})
    for row in rows
  )
  body.append(tag('div', *cards, class_='mistakes'))
  return page.document(title, *body)


def _said(row: Mapping[str, Any]) -> str:
  """The one word that counts most: the verdict, the class, or which boxes there are."""
  if 'detections' in row:
    found = collections.Counter(one['class'] for one in row['detections'])
    return ', '.join(f'{count} {name}' for name, count in found.most_common()) or 'no box'
  return str(row['verdict'] if 'verdict' in row else row['class'])


def _figure(row: Mapping[str, Any], paths: Sequence[str], known: Mapping[str, Tested]) -> Markup:
  said = _said(row)
  plain = {k: v for k, v in row.items() if k != 'image' and not isinstance(v, Mapping | list)}
  words = [
    f'{name.replace("_", " ")} {_number(name, value) if isinstance(value, float) else value}'
    for name, value in plain.items()
    if value != said
  ]
  others = {k: v for k, v in row.get('probabilities', {}).items() if k != said}
  second = max(others, key=others.__getitem__, default=None)
  if second is not None and others[second] >= _WORTH_SAYING:
    words.append(f'then {second} {_number("probability", others[second])}')
  values = ', '.join(words)
  caption = [tag('b', said), tag('div', values), tag('div', row['image'], class_='name')]
  if said in known and known[said].wrong:
    caption.insert(2, tag('div', f'in the test {known[said].right} right'))
  alt = f'{row["image"]}: {said}'
  pictures = [tag('a', _image(path, alt), href=urllib.parse.quote(path)) for path in paths]
  pair = tag('div', *pictures, class_='pair' if len(pictures) > 1 else 'alone')
  return tag('figure', pair, tag('figcaption', *caption))


def _number(name: str, value: float) -> str:
  return page.probability(value) if name == 'probability' else f'{value:.4g}'


def _image(path: str, alt: str) -> Markup:
  source = page.text(urllib.parse.quote(path))
  return Markup(f'<img src="{source}" alt="{page.text(alt)}" loading="lazy">')
