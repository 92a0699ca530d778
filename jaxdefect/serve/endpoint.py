"""A picture in, a verdict out: the HTTP endpoint of an exported model.

- ``POST /inspect``: the bytes of a picture file as the body; answers with the verdict as JSON.
- ``POST /overlay``: the same, answers with the picture as PNG, what was found drawn into it; the
  verdict is in the header ``X-Verdict`` (JSON; left out where it is too long for a header).
- ``GET /``: what the model is. ``GET /health``: whether it answers. ``GET /metrics``: Prometheus.

At most ``queue`` pictures are held at once, waiting or computed on; one more is answered with 503
and ``Retry-After`` before its body is read, so memory is bounded by ``queue * largest_body`` plus
what decoding takes. What was taken is answered: a server that is asked to stop finishes it first.
"""

import asyncio
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from jaxdefect.data import decode

LARGEST_BODY = 32 * 1024**2  # bytes
LARGEST_PICTURE = 50_000_000  # pixels
LONGEST_HEADER = 4096
SECONDS_TO_SEND = 10.0  # that a client may take over its body
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# uint8 [H, W, 1 or 3], whether to draw -> (verdict as plain data, PNG or None).
Inspect = Callable[[np.ndarray, bool], tuple[dict[str, Any], bytes | None]]


class _Refused(Exception):
  """A request that is answered with a sentence."""

  def __init__(self, status: int, sentence: str):
    super().__init__(sentence)
    self.status, self.sentence = status, sentence


class _Meter:
  """What ``/metrics`` tells."""

  def __init__(self):
    self._lock = threading.Lock()
    self._answers: Counter[int] = Counter()
    self._buckets = [0] * (len(BUCKETS) + 1)
    self._seconds = 0.0

  def count(self, status: int, seconds: float | None = None) -> None:
    """Counts an answer; the time of those that were inspected."""
    with self._lock:
      self._answers[status] += 1
      if seconds is not None:
        place = next((i for i, end in enumerate(BUCKETS) if seconds <= end), len(BUCKETS))
        self._buckets[place] += 1
        self._seconds += seconds

  def text(self, held: int, queue: int) -> str:
    """In Prometheus's exposition format."""
    with self._lock:
      lines = ['# TYPE jaxdefect_requests_total counter']
      lines += [
        f'jaxdefect_requests_total{{code="{code}"}} {n}'
        for code, n in sorted(self._answers.items())
      ]
      lines.append('# TYPE jaxdefect_inspection_seconds histogram')
      total = 0
      for end, n in zip((*BUCKETS, '+Inf'), self._buckets):
        total += n
        lines.append(f'jaxdefect_inspection_seconds_bucket{{le="{end}"}} {total}')
      lines += [
        f'jaxdefect_inspection_seconds_sum {self._seconds:.6f}',
        f'jaxdefect_inspection_seconds_count {total}',
        '# TYPE jaxdefect_pictures_held gauge',
        f'jaxdefect_pictures_held {held}',
        '# TYPE jaxdefect_queue_limit gauge',
        f'jaxdefect_queue_limit {queue}',
        '# TYPE process_resident_memory_bytes gauge',
        f'process_resident_memory_bytes {_resident_bytes()}',
      ]
    return '\n'.join(lines) + '\n'


def make_app(
  inspect: Inspect,
  described: dict[str, Any],
  *,
  queue: int = 16,
  workers: int = 1,
  largest_body: int = LARGEST_BODY,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> Starlette:
  """Makes the application.

  Args:
    inspect: runs the model on one picture; called from ``workers`` threads.
    described: what ``GET /`` answers.
    queue: pictures that are held at once.
    workers: of them, how many are computed on at once.
    largest_body: bytes; a longer one is answered with 413.
    sixteen_bit_range: as in ``data.decode.decode``.

  Returns:
    A Starlette application.
  """
  if not 1 <= workers <= queue:
    raise ValueError(f'workers must be 1 to the queue, {queue}; got {workers}')
  meter, held = _Meter(), 0
  pool = ThreadPoolExecutor(workers, thread_name_prefix='inspect')

  def work(body: bytes, draw: bool) -> tuple[dict[str, Any], bytes | None]:
    try:
      _check_size(body)
      picture = decode.decode(body, sixteen_bit_range=sixteen_bit_range)
    except (ValueError, OSError) as error:
      raise _Refused(400, f'the body is no picture that can be read: {error}') from None
    try:
      return inspect(picture, draw)
    except ValueError as error:  # of a size that the model does not take
      raise _Refused(422, str(error)) from None

  async def answer(request: Request, *, draw: bool) -> Response:
    nonlocal held
    started = time.perf_counter()
    if held >= queue:
      meter.count(503)
      sentence = f'{queue} pictures are waiting already; try again'
      return JSONResponse({'error': sentence}, 503, {'Retry-After': '1'})
    held += 1  # one event loop: nothing comes in between
    try:
      body = await asyncio.wait_for(_body(request, largest_body), SECONDS_TO_SEND)
      loop = asyncio.get_running_loop()
      verdict, png = await loop.run_in_executor(pool, work, body, draw)
    except TimeoutError:
      return _error(meter, 408, f'the body took more than {SECONDS_TO_SEND:g} s to arrive')
    except ClientDisconnect:
      return _error(meter, 400, 'the client went away')
    except _Refused as error:
      return _error(meter, error.status, error.sentence)
    finally:
      held -= 1
    if draw and png is None:
      return _error(meter, 422, 'this model does not say where; POST /inspect has its verdict')
    meter.count(200, time.perf_counter() - started)
    if png is None:
      return JSONResponse(verdict)
    told = json.dumps(verdict)
    headers = {'X-Verdict': told} if len(told) <= LONGEST_HEADER else {}
    return Response(png, media_type='image/png', headers=headers)

  async def inspected(request: Request) -> Response:
    return await answer(request, draw=False)

  async def drawn(request: Request) -> Response:
    return await answer(request, draw=True)

  async def about(request: Request) -> Response:
    del request
    return JSONResponse(described)

  async def health(request: Request) -> Response:
    del request
    return JSONResponse({'status': 'ok', 'held': held, 'queue': queue})

  async def metrics(request: Request) -> Response:
    del request
    return PlainTextResponse(meter.text(held, queue), media_type='text/plain; version=0.0.4')

  return Starlette(
    routes=[
      Route('/', about),
      Route('/inspect', inspected, methods=['POST']),
      Route('/overlay', drawn, methods=['POST']),
      Route('/health', health),
      Route('/metrics', metrics),
    ]
  )


def _error(meter: _Meter, status: int, sentence: str) -> Response:
  meter.count(status)
  return JSONResponse({'error': sentence}, status)


async def _body(request: Request, largest: int) -> bytes:
  """The whole body; refused as soon as it is known to be too long."""
  told = request.headers.get('content-length', '')
  parts, length = [], int(told) if told.isdigit() else 0
  if length <= largest:
    length = 0
    async for part in request.stream():
      parts.append(part)
      length += len(part)
      if length > largest:
        break
  if length > largest:
    raise _Refused(413, f'a picture may have {largest} bytes; this body is longer')
  return b''.join(parts)


def _check_size(body: bytes) -> None:
  """Refuses what would take too much memory once decoded, by its header."""
  import io

  try:
    with Image.open(io.BytesIO(body)) as image:
      pixels = image.width * image.height
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return  # decoding says what is wrong
  if pixels > LARGEST_PICTURE:
    raise ValueError(f'it has {pixels} pixels, at most {LARGEST_PICTURE} are taken')


def _resident_bytes() -> int:
  try:
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
  except OSError:  # not Linux
    return 0
