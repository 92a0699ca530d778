"""The endpoint under load: throughput, p99, memory, what overload and malformed bodies are told.

    python -m benchmarks.serve EXPORT PICTURE [--seconds=60]

Starts ``launch.serve`` on loopback and loads it with wrk (Debian's package): first as many
connections as the endpoint queues, then four times as many, then bodies that are no pictures. What
wrk received is compared with what the endpoint counted, so that a lost answer would show. Server
and load share the processor. Writes ``benchmarks/results/serve-<processor>.json``.
"""

import argparse
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any

from benchmarks import timing

QUEUE = 8
_SCRIPT = """
wrk.method = 'POST'
wrk.body = io.open('{body}', 'rb'):read('*a')
codes = {{}}  -- a global, for thread:get
local thread_list = {{}}
function setup(thread) table.insert(thread_list, thread) end
function init() codes = {{}} end
function response(status, headers, body)
  codes[status] = (codes[status] or 0) + 1
  if status == 200 and body ~= [==[{expected}]==] then
    codes[0] = (codes[0] or 0) + 1
  end
end
function done(summary, latency, requests)
  local total = {{}}
  for _, thread in ipairs(thread_list) do
    for status, n in pairs(thread:get('codes')) do total[status] = (total[status] or 0) + n end
  end
  for status, n in pairs(total) do io.write('code ', status, ' ', n, '\\n') end
  io.write('requests ', summary.requests, '\\n')
  io.write('microseconds ', summary.duration, '\\n')
  io.write('socket_errors ', summary.errors.connect + summary.errors.read + summary.errors.write
           + summary.errors.timeout, '\\n')
  for _, p in ipairs({{50, 95, 99}}) do
    io.write('p', p, ' ', latency:percentile(p), '\\n')
  end
end
"""


def load(
  base: str,
  body: pathlib.Path,
  folder: pathlib.Path,
  *,
  connections: int,
  seconds: float,
  expected: str,
) -> dict[str, Any]:
  """One run of wrk against ``/inspect``."""
  script = folder / 'load.lua'
  script.write_text(_SCRIPT.format(body=body, expected=expected))
  command = ['wrk', '-t1', f'-c{connections}', f'-d{seconds:g}s', '--timeout=30s']
  done = subprocess.run(
    [*command, '-s', str(script), f'{base}/inspect'], capture_output=True, text=True, check=True
  )
  told = dict(re.findall(r'^((?:code )?\w+) ([\d.]+)$', done.stdout, re.MULTILINE))
  codes = {int(name.split()[1]): int(n) for name, n in told.items() if name.startswith('code ')}
  length = float(told['microseconds']) / 1e6
  return {
    'connections': connections,
    'seconds': length,
    'codes': {str(code): n for code, n in codes.items() if code},
    'wrong_bodies': codes.get(0, 0),
    'socket_errors': int(float(told['socket_errors'])),
    'answers_per_second': sum(n for code, n in codes.items() if code) / length,
    'verdicts_per_second': codes.get(200, 0) / length,
    'latency_ms': {name: float(told[name]) / 1000 for name in ('p50', 'p95', 'p99')},
  }


def metrics(base: str) -> dict[str, float]:
  """What the endpoint says of itself."""
  with urllib.request.urlopen(f'{base}/metrics') as answer:
    lines = answer.read().decode().splitlines()
  return {name: float(value) for name, value in (s.split(' ') for s in lines if s[0] != '#')}


def main() -> None:
  parser = argparse.ArgumentParser(description='The endpoint under load.')
  parser.add_argument('model', type=pathlib.Path)
  parser.add_argument('picture', type=pathlib.Path)
  parser.add_argument('--seconds', type=float, default=60)
  arguments = parser.parse_args()
  if shutil.which('wrk') is None:
    sys.exit('error: wrk is not installed (package wrk)')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  base = f'http://127.0.0.1:{port}'
  command = [sys.executable, '-m', 'launch.serve', f'--model={arguments.model}', f'--port={port}']
  server = subprocess.Popen([*command, f'--queue={QUEUE}'])
  cases: dict[str, Any] = {}
  try:
    _wait(base)
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      picture = folder / 'picture'
      picture.write_bytes(arguments.picture.read_bytes())
      bad = folder / 'bad'
      bad.write_bytes(b'this is no picture')
      request = urllib.request.Request(f'{base}/inspect', data=picture.read_bytes())
      with urllib.request.urlopen(request) as answer:
        expected = answer.read().decode()
      # Warms up, and lets what is in flight end.
      load(base, picture, folder, connections=2, seconds=5, expected=expected)
      time.sleep(3)
      for title, body, connections, seconds in (
        ('as many as it queues', picture, QUEUE, arguments.seconds),
        ('four times as many', picture, 4 * QUEUE, arguments.seconds / 2),
        ('no pictures', bad, 2, 5),
        ('as many as it queues, again', picture, QUEUE, arguments.seconds / 2),
      ):
        before = metrics(base)
        found = load(
          base, body, folder, connections=connections, seconds=seconds, expected=expected
        )
        time.sleep(3)  # what was in flight when wrk hung up is finished
        after = metrics(base)
        found['counted_by_the_endpoint'] = {
          code: int(after[key] - before.get(key, 0))
          for key in after
          for code in re.findall(r'requests_total\{code="(\d+)"\}', key)
          if after[key] > before.get(key, 0)
        }
        found['resident_mb'] = [
          one['process_resident_memory_bytes'] / 1e6 for one in (before, after)
        ]
        found['held_after'] = int(after['jaxdefect_pictures_held'])
        cases[title] = found
        print(title, found, flush=True)
  finally:
    server.send_signal(signal.SIGTERM)
    server.wait(30)
  path = timing.write_results(
    'serve', timing.processor(), cases, threads=None, sizes={'queue': QUEUE, 'workers': 1}
  )
  print(f'wrote {path}')


def _wait(base: str) -> None:
  for _ in range(600):
    try:
      urllib.request.urlopen(f'{base}/health').close()
      return
    except OSError:
      time.sleep(0.1)
  sys.exit('error: the endpoint did not start')


if __name__ == '__main__':
  main()
