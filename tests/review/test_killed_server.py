"""The server is killed twenty times at random: no verdict is lost, no model half promoted."""

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from jaxdefect.review import Store
from tests.review.line_of_pictures import FakeLine

ROOT = pathlib.Path(__file__).parent.parent.parent
KILLS, PICTURES = 20, 900


class Server:
  """One in a process of its own, and what it has answered."""

  def __init__(self, folder: pathlib.Path):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'tests.review.line_of_pictures', str(folder), str(port)],
      cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )
    self.client = httpx2.Client(base_url=f'http://127.0.0.1:{port}', timeout=10)
    self.token = self._token()

  def _token(self) -> str:
    end = time.monotonic() + 60
    while True:
      try:
        found = re.search(r'"token": "([^"]+)"', self.client.get('/').text)
        assert found
        return found.group(1)
      except httpx2.TransportError:
        assert time.monotonic() < end, 'the server does not answer'
        assert self.process.poll() is None, 'the server has ended'
        time.sleep(0.05)

  def post(self, path: str, **body: str) -> int:
    sent = {'x-review-token': self.token}
    return self.client.post(path, json={'reviewer': 'anna', **body}, headers=sent).status_code

  def ended(self) -> None:
    """Waits for the kill, and gives the connection back."""
    self.process.wait(10)
    self.client.close()

  def kill_after(self, seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (self.process.pid, signal.SIGKILL))
    timer.start()
    return timer


def test_no_verdict_is_lost_and_no_model_half_promoted(tmp_path):
  fake = FakeLine(tmp_path, num=PICTURES)
  with Store(fake.path) as store:
    store.add_model('second', who='anna')
  delays = random.Random(0)
  answered: list[str] = []
  for _ in range(KILLS):
    server = Server(tmp_path)
    timer = server.kill_after(delays.uniform(0.0, 0.2))
    asked = ''
    try:
      with Store(fake.path) as store:
        waiting = [one.prediction.image for one in store.queue(limit=PICTURES)]
      for asked in waiting:
        assert server.post('/api/verdict', image=asked, label='bent') == 200
        answered.append(asked)
        server.post('/api/rollback' if len(answered) % 2 else '/api/retrain')
    except httpx2.TransportError:
      pass
    server.ended()
    timer.cancel()
    with Store(fake.path) as store:
      judged = [one.image for one in store.verdicts()]
      # What was answered is there; of what was asked when the kill came, either all or nothing.
      assert set(answered) <= set(judged) <= {*answered, asked}
      assert len(judged) == len(set(judged))
      answered = judged
      assert store.waiting() + len(judged) == PICTURES
      states = [model['state'] for model in store.models()]
      assert states.count('live') == 1
      moves = [
        one['details']['model']
        for one in store.audit()
        if one['what'] in ('model promoted', 'rolled back')
      ]
      assert store.live()[0] == moves[-1]
  assert 0 < len(answered) < PICTURES, 'the kills came before or after all the work'


def test_what_a_killed_server_leaves_behind_is_served_again(tmp_path):
  fake = FakeLine(tmp_path, num=6)
  server = Server(tmp_path)
  assert server.post('/api/verdict', image=fake.images[0], label='good') == 200
  os.kill(server.process.pid, signal.SIGKILL)
  server.process.wait(10)
  with pytest.raises(httpx2.TransportError):
    server.client.get('/')
  server.ended()
  again = Server(tmp_path)
  try:
    assert again.client.get('/api/state').json()['judged'] == 1
    assert again.post('/api/undo') == 200
  finally:
    again.process.kill()
    again.ended()
