"""Pieces of a page that needs nothing but itself: escaped text, tables, pictures inside the file.

Every function returns ``Markup``. Whatever is not ``Markup`` is somebody's text and is escaped, so
a class named ``<script>`` is printed as just that.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxdefect.explain import overlays


class Markup(str):
  """Text that is HTML already."""

  __slots__ = ()


STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --quiet: #5d6670; --line: #dfe3e8; --back: #fff;
  --card: #f6f8fa; --mark: #0072b2; --soft: #a9d0ec; --warn: #fff6e0; --warn-line: #e69f00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --quiet: #a3abb5; --line: #3a4048;
  --back: #16191d; --card: #1f2429; --mark: #56b4e9; --soft: #2c5f80; --warn: #33290f;
  --warn-line: #b98a1c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.5rem 4rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial,
  'Noto Sans', sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
p { margin: .4rem 0; } .quiet, caption, figcaption, footer { color: var(--quiet); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0 .6rem; }
.card { flex: 1 1 11rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .8rem 1rem; }
.card b, td { font-variant-numeric: tabular-nums; }
.card.first { flex: 1.6 1 14rem; border-left: .3rem solid var(--mark); }
.card b { display: block; font-size: 1.7rem; line-height: 1.25; white-space: nowrap; }
.card.first b { font-size: 2.3rem; } .card small { display: block; color: var(--quiet); }
.warnings { background: var(--warn); border-left: .3rem solid var(--warn-line); padding: .7rem 1rem;
  border-radius: .3rem; margin: 1rem 0; } .warnings ul { margin: .2rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; color: var(--quiet); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal;
  overflow-wrap: anywhere; min-width: 9rem; }
.scroll + .scroll { margin-top: 1.4rem; }
table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.text td:first-child { width: 34%; color: var(--quiet); }
.bar { position: relative; display: inline-block; vertical-align: middle; width: 9rem;
  height: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .2rem; }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--soft); }
.bar s { position: absolute; top: -2px; bottom: -2px; width: 3px; margin-left: -1.5px;
  background: var(--mark); }
figure { margin: 1rem 0; } figure > img { max-width: 100%; height: auto; border-radius: .3rem; }
figcaption { font-size: .88rem; margin-top: .3rem; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: 1rem; margin-top: 1rem; }
.mistakes figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; }
.pair img, .alone img, .mistakes figure > img { width: 100%; display: block; border-radius: .2rem; }
.mistakes figcaption { overflow-wrap: anywhere; line-height: 1.4; }
.mistakes figcaption b { color: var(--ink); } .name { font-size: .8rem; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--mark); }
code { font: .9em ui-monospace, 'DejaVu Sans Mono', Consolas, monospace;
  overflow-wrap: anywhere; }
footer { margin-top: 3rem; font-size: .85rem; border-top: 1px solid var(--line);
  padding-top: .6rem; }
@media print { :root { color-scheme: light; --ink: #000; --quiet: #444; --line: #ccc; --back: #fff;
    --card: #fff; --mark: #0072b2; --soft: #cfe3f1; --warn: #fff; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  figure, tr, .card, .warnings { break-inside: avoid; } h2 { break-after: avoid; }
  table { font-size: .82rem; } th, td { padding: .2rem .35rem; } .bar { width: 5rem; }
  .mistakes { grid-template-columns: repeat(3, 1fr); }
  details::details-content { content-visibility: visible; block-size: auto; }
  figure > img { max-height: 24cm; } }
"""


def text(value: Any) -> Markup:
  """Somebody's text, escaped; ``Markup`` stays as it is."""
  return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(pieces: Iterable[Any], *, separator: str = '') -> Markup:
  """Pieces one after another; each is escaped unless it is ``Markup``."""
  return Markup(separator.join(text(piece) for piece in pieces))


def tag(name: str, *pieces: Any, **attributes: Any) -> Markup:
  """``<name attribute="value">pieces</name>``; ``class_`` stands for ``class``."""
  listed = ''.join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items())
  return Markup(f'<{name}{listed}>{join(pieces)}</{name}>')


def table(
  head: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str = '', class_: str = ''
) -> Markup:
  """A table that scrolls on its own where the page is narrow.

  Args:
    head: titles of the columns; empty for none.
    rows: cells.
    caption: a line above.
    class_: ``'text'`` for two columns of names and values.

  Returns:
    The table.
  """
  parts = []
  if caption:
    parts.append(tag('caption', caption))
  if head:
    parts.append(tag('thead', tag('tr', *(tag('th', cell, scope='col') for cell in head))))
  body = (tag('tr', *(tag('td', cell) for cell in row)) for row in rows)
  parts.append(tag('tbody', join(body, separator='\n')))
  return tag('div', tag('table', *parts, **({'class_': class_} if class_ else {})), class_='scroll')


def fold(title: str, content: Markup, *, open_: bool = False) -> Markup:
  """A part that opens on a click, and in print."""
  return tag('details', tag('summary', title), content, **({'open': 'open'} if open_ else {}))


def probability(value: float) -> str:
  """A model's probability for readers: in percent, and never certain.

  >>> probability(0.4987), probability(0.99996)
  ('49.9 %', '> 99.9 %')
  """
  return '> 99.9 %' if value > 0.999 else f'{100 * value:.1f} %'


def flat(values: Mapping[str, Any], *, prefix: str = '') -> list[tuple[str, Any]]:
  """A nested mapping as ``[('data.dir', value), ...]``."""
  rows = []
  for name, value in values.items():
    if isinstance(value, Mapping) and value:
      rows += flat(value, prefix=f'{prefix}{name}.')
    else:
      rows.append((f'{prefix}{name}', value))
  return rows


def picture(png: bytes, *, alt: str, scale: float | None = None) -> Markup:
  """An image whose bytes are in the page.

  Args:
    png: bytes of a PNG file.
    alt: what is seen, for those who do not see it.
    scale: CSS pixels per pixel of the file; None leaves the size to the page.

  Returns:
    The image.
  """
  size = ''
  if scale is not None:
    width, height = (round(scale * side) for side in Image.open(io.BytesIO(png)).size)
    size = f' width="{width}" height="{height}"'
  data = base64.b64encode(png).decode('ascii')
  return Markup(f'<img src="data:image/png;base64,{data}" alt="{text(alt)}"{size}>')


def photo(image: np.ndarray, *, alt: str, max_side: int = 320) -> Markup:
  """A photograph in the page, reduced where it is large.

  Args:
    image: as in ``overlays.as_rgb``.
    alt: what is seen.
    max_side: longest side, in pixels.

  Returns:
    The image.
  """
  shown = Image.fromarray(np.ascontiguousarray(overlays.as_rgb(image)))
  shown.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
  buffer = io.BytesIO()
  shown.save(buffer, format='PNG', optimize=True)
  return picture(buffer.getvalue(), alt=alt)


def document(title: str, *body: Any) -> str:
  """The whole page."""
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
    f'{join(body, separator=chr(10))}\n</body>\n</html>\n'
  )
