"""The page that an inspector opens every morning: the queue, a verdict by one key, and the gauges.

The server is for one machine: it binds to loopback, answers to its own host names alone (so that no
web site can reach it through DNS), takes writes as JSON with the page's token alone (so that no
other page can post), and serves pictures by the sum of their pixels alone (so that there is no path
to traverse). It takes no uploads. What a request is answered with is on the disk.
"""

import io
import json
import pathlib
import re
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jaxdefect.data import decode
from jaxdefect.review.records import Conflict, Queued
from jaxdefect.review.store import Store

LOOPBACK = ('127.0.0.1', 'localhost', '[::1]')
LARGEST_BODY = 64 * 1024  # bytes; a verdict has some hundred
PAGE_SIZE = 50
_HISTORY = 50
_SUM = re.compile('[0-9a-f]{64}')
_NAME = 60  # characters of a reviewer
_PAGE = pathlib.Path(__file__).with_name('page.html')
_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}


class Line(NamedTuple):
  """What the page shows of a line, and may ask of it.

  Attributes:
    title: heading.
    store: path of the ``Store``.
    overlays: folder of ``<sum>.png``; may be missing.
    classes: names that a verdict can give, of the model that predicts now.
    gauges: readiness, as a dict that can be written as JSON, with ``verdict`` and ``reason``.
    models: rows about every model, for the comparison and the learning curve.
    retrain: starts a retraining in the background; raises ``Conflict`` where one runs.
    job: what the retraining is at: ``state`` ('none', 'running', 'done', 'failed') and ``said``.
  """

  title: str
  store: pathlib.Path
  overlays: pathlib.Path
  classes: Callable[[], Sequence[str]]
  gauges: Callable[[], dict[str, Any]]
  models: Callable[[], list[dict[str, Any]]]
  retrain: Callable[[str], None]
  job: Callable[[], dict[str, Any]]


class _Refused(Exception):
  """A request that is answered with a sentence."""

  def __init__(self, status: int, sentence: str):
    super().__init__(sentence)
    self.status, self.sentence = status, sentence


def make_app(line: Line, *, hosts: Sequence[str] = LOOPBACK) -> Starlette:
  """Makes the application.

  Args:
    line: what it shows.
    hosts: names that it answers to.

  Returns:
    The ASGI application.
  """
  token = secrets.token_urlsafe(32)

  def page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    values = json.dumps({'token': token, 'title': line.title})
    text = _PAGE.read_text(encoding='utf-8')
    text = text.replace('NONCE', nonce).replace('"SETTINGS"', values.replace('<', '\\u003c'))
    policy = (
      f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
      f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {**_HEADERS, 'Content-Security-Policy': policy}
    return Response(text, media_type='text/html; charset=utf-8', headers=headers)

  def queue(request: Request) -> Response:
    after = _after(request.query_params.get('after', ''))
    with Store(line.store) as store:
      rows = store.queue(limit=PAGE_SIZE, after=after)
      waiting = store.waiting()
    shown = [_shown(one, line.overlays) for one in rows]
    more = None
    if len(rows) == PAGE_SIZE:
      last = rows[-1]
      more = f'{int(last.missed)}/{last.prediction.priority!r}/{last.prediction.image}'
    return _answer({'rows': shown, 'more': more, 'waiting': waiting})

  def state(request: Request) -> Response:
    with Store(line.store) as store:
      history = [one._asdict() for one in store.verdicts(standing=False)[-_HISTORY:][::-1]]
      waiting, judged = store.waiting(), len(store.verdicts())
    return _answer(
      {
        **{'history': history, 'waiting': waiting, 'judged': judged},
        **{'classes': list(line.classes()), 'models': line.models(), 'job': line.job()},
      }
    )

  def gauges(request: Request) -> Response:
    return _answer(line.gauges())

  def picture(request: Request) -> Response:
    image = request.path_params['image']
    with Store(line.store) as store:
      known = store.image(image)
    if known is None:
      raise _Refused(404, 'There is no such picture.')
    path = pathlib.Path(known.path)
    try:
      pixels = decode.read_image(path)
    except (OSError, ValueError):
      raise _Refused(410, f'{path.name} cannot be read any more.') from None
    if decode.pixel_hash(pixels) != image:
      raise _Refused(410, f'{path.name} has changed since it was scored.')
    return _png(pixels, side=request.query_params.get('side', ''))

  def overlay(request: Request) -> Response:
    image = request.path_params['image']
    path = line.overlays / f'{image}.png'
    if not _SUM.fullmatch(image) or not path.is_file():
      raise _Refused(404, 'There is no overlay of this picture.')
    headers = {**_HEADERS, 'Cache-Control': 'private, max-age=60'}
    return Response(path.read_bytes(), media_type='image/png', headers=headers)

  def verdict(body: dict[str, Any]) -> dict[str, Any]:
    image, label, who = _text(body, 'image'), _text(body, 'label'), _reviewer(body)
    if label not in line.classes():
      raise _Refused(400, f'There is no class {label!r}; there are {", ".join(line.classes())}.')
    with Store(line.store) as store:
      known = store.image(image)
      if known is not None:  # what is judged must be what was seen
        path = pathlib.Path(known.path)
        try:
          now = decode.pixel_hash(decode.read_image(path))
        except (OSError, ValueError):
          raise _Refused(410, f'{path.name} cannot be read any more.') from None
        if now != image:
          raise _Refused(410, f'{path.name} has changed since it was scored.')
      return {'verdict': store.judge(image, label, reviewer=who)}

  def undo(body: dict[str, Any]) -> dict[str, Any]:
    with Store(line.store) as store:
      return store.undo(reviewer=_reviewer(body))._asdict()

  def retrain(body: dict[str, Any]) -> dict[str, Any]:
    line.retrain(_reviewer(body))
    return line.job()

  def rollback(body: dict[str, Any]) -> dict[str, Any]:
    with Store(line.store) as store:
      return {'model': store.roll_back(who=_reviewer(body))}

  def reading(handler: Callable[[Request], Response]) -> Callable:
    def endpoint(request: Request) -> Response:
      return _guarded(lambda: handler(request))

    return endpoint

  def writing(handler: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable:
    async def endpoint(request: Request) -> Response:
      try:
        body = await _body(request, token)
      except _Refused as refused:
        return _answer({'error': refused.sentence}, refused.status)
      return await run_in_threadpool(_guarded, lambda: _answer(handler(body)))

    return endpoint

  routes = [
    Route('/', reading(page)),
    Route('/api/queue', reading(queue)),
    Route('/api/state', reading(state)),
    Route('/api/gauges', reading(gauges)),
    Route('/picture/{image:str}', reading(picture)),
    Route('/overlay/{image:str}', reading(overlay)),
    Route('/api/verdict', writing(verdict), methods=['POST']),
    Route('/api/undo', writing(undo), methods=['POST']),
    Route('/api/retrain', writing(retrain), methods=['POST']),
    Route('/api/rollback', writing(rollback), methods=['POST']),
  ]
  trusted = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
  return Starlette(routes=routes, middleware=[trusted])


def _guarded(answer: Callable[[], Response]) -> Response:
  """What can go wrong with a person's request, as a sentence and a status."""
  try:
    return answer()
  except _Refused as refused:
    return _answer({'error': refused.sentence}, refused.status)
  except Conflict as error:
    return _answer({'error': str(error)}, 409)
  except ValueError as error:
    return _answer({'error': str(error)}, 400)
  except sqlite3.OperationalError as error:
    return _answer({'error': f'Nothing was saved: {error}. Try again.'}, 503)
  except OSError as error:
    return _answer({'error': f'Nothing was saved: {error.strerror or error}.'}, 507)


def _answer(content: Any, status: int = 200) -> Response:
  return JSONResponse(content, status_code=status, headers=_HEADERS)


async def _body(request: Request, token: str) -> dict[str, Any]:
  """The JSON of a request that comes from our page."""
  if not secrets.compare_digest(request.headers.get('x-review-token', ''), token):
    raise _Refused(403, 'This request does not come from the page; reload it.')
  origin = request.headers.get('origin')
  if origin is not None and origin != f'{request.url.scheme}://{request.headers["host"]}':
    raise _Refused(403, 'This request comes from another site.')
  if request.headers.get('content-type', '').split(';')[0] != 'application/json':
    raise _Refused(415, 'Only JSON is taken.')
  content = b''
  async for part in request.stream():
    content += part
    if len(content) > LARGEST_BODY:
      raise _Refused(413, f'A request has at most {LARGEST_BODY:,} bytes.')
  try:
    body = json.loads(content)
  except ValueError:
    raise _Refused(400, 'The request is no JSON.') from None
  if not isinstance(body, dict):
    raise _Refused(400, 'The request is no JSON object.')
  return body


def _text(body: dict[str, Any], name: str) -> str:
  value = body.get(name)
  if not isinstance(value, str) or not value:
    raise _Refused(400, f'{name} is missing.')
  return value


def _reviewer(body: dict[str, Any]) -> str:
  name = _text(body, 'reviewer').strip()
  if not name or len(name) > _NAME or not name.isprintable():
    raise _Refused(400, f'reviewer is a name of 1 to {_NAME} letters.')
  return name


def _after(text: str) -> tuple[bool, float, str] | None:
  if not text:
    return None
  try:
    missed, priority, image = text.split('/')
    return bool(int(missed)), float(priority), image
  except ValueError:
    raise _Refused(400, 'after is not the end of a page.') from None


def _shown(one: Queued, overlays: pathlib.Path) -> dict[str, Any]:
  row = one.prediction._asdict()
  row['name'] = pathlib.Path(row.pop('path')).name
  return {**row, 'missed': one.missed, 'overlay': (overlays / f'{row["image"]}.png').is_file()}


def _png(pixels: np.ndarray, *, side: str) -> Response:
  buffer = io.BytesIO()
  picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
  if side:
    if not side.isdecimal() or not 16 <= int(side) <= 4096:
      raise _Refused(400, 'side is a number of pixels from 16 to 4096.')
    picture.thumbnail((int(side), int(side)))
  picture.save(buffer, 'PNG')
  headers = {**_HEADERS, 'Cache-Control': 'private, max-age=60'}
  return Response(buffer.getvalue(), media_type='image/png', headers=headers)
