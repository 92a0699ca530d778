"""A person at the page, by a headless browser: ten pictures by keyboard, one mistake, a retraining.

Chromium comes from the system (``JAXDEFECT_BROWSER`` names it, or it is in its usual place).
"""

import os
import pathlib
import shutil
import socket
import threading
import time

import pytest

from jaxdefect.review import Store, web
from tests.review.line_of_pictures import FakeLine

BROWSER = os.environ.get('JAXDEFECT_BROWSER') or shutil.which('chromium')
# Without these it asks the network at every start.
ARGUMENTS = [
  *('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'),
  *('--disable-background-networking', '--disable-component-update'),
]

pytestmark = pytest.mark.skipif(
  not BROWSER and 'JAXDEFECT_DATA' not in os.environ,
  reason='no Chromium on this machine (package chromium, or JAXDEFECT_BROWSER)',
)


@pytest.fixture
def fake(tmp_path):
  return FakeLine(tmp_path, num=14)


@pytest.fixture
def address(fake):
  """The page of a fake line, served on a free port of loopback."""
  import uvicorn

  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  settings = {'host': '127.0.0.1', 'port': port, 'log_level': 'warning', 'ws': 'none'}
  server = uvicorn.Server(uvicorn.Config(web.make_app(fake.line), **settings))
  thread = threading.Thread(target=server.run, daemon=True)
  thread.start()
  for _ in range(200):
    if server.started:
      break
    time.sleep(0.05)
  yield f'http://127.0.0.1:{port}/'
  server.should_exit = True
  thread.join(10)


@pytest.fixture
def page(address):
  from playwright.sync_api import sync_playwright

  assert BROWSER, 'JAXDEFECT_DATA is set, so that no test may skip: install Chromium'
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
    opened = browser.new_page(viewport={'width': 1280, 'height': 900})
    opened.said = []  # what the browser complains of
    opened.on('pageerror', lambda error: opened.said.append(str(error)))
    opened.on('console', lambda m: opened.said.append(m.text) if m.type == 'error' else None)
    opened.goto(address)
    opened.wait_for_selector('#choices button')
    opened.wait_for_selector('.gauge')
    yield opened
    browser.close()


def until(page, expression: str, *, seconds: float = 15) -> None:
  """Waits for a truth about the page; its policy forbids to wait inside of it."""
  end = time.monotonic() + seconds
  while not page.evaluate(expression):
    assert time.monotonic() < end, f'{expression} never came true; the page said {page.said}'
    time.sleep(0.05)


def judged(page, number: int) -> None:
  until(page, f"document.getElementById('judged').textContent === '{number}'")


def test_ten_pictures_by_keyboard_one_undone_a_retraining(page, fake):
  page.keyboard.press('1')
  until(page, "document.getElementById('said').textContent.includes('Who are you?')")
  page.fill('#reviewer', 'anna')
  page.keyboard.press('2')  # typed into the field: no verdict
  page.fill('#reviewer', 'anna')
  page.locator('#reviewer').blur()
  first = page.get_attribute('#picture', 'alt')
  for number in range(10):
    page.keyboard.press(str(1 + number % 3))
    judged(page, number + 1)
  assert page.get_attribute('#picture', 'alt') != first
  with Store(fake.path) as store:
    verdicts = store.verdicts()
  assert [v.label for v in verdicts] == [fake.line.classes()[i % 3] for i in range(10)]
  assert [v.image for v in verdicts] == fake.images[:10]  # in the order of the queue
  assert {v.reviewer for v in verdicts} == {'anna'}

  page.keyboard.press('u')
  judged(page, 9)
  assert page.get_attribute('#picture', 'alt') == '09.png'  # the one that came back
  assert page.locator('#history tr.undone').count() == 1
  page.keyboard.press('3')
  judged(page, 10)

  width = page.evaluate("document.querySelector('.gauge i').style.width")
  page.click('#retrain')
  until(page, f"document.querySelector('.gauge i').style.width !== '{width}'")
  until(page, "document.querySelectorAll('#models tr').length === 3")
  assert page.locator('#curve svg circle').count() == 2
  assert page.said == []


def test_overlay_later_and_the_other_reviewer(page, fake):
  page.fill('#reviewer', 'anna')
  page.locator('#reviewer').blur()
  source = "document.getElementById('picture').src"
  assert '/picture/' in page.evaluate(source)
  page.keyboard.press('o')
  until(page, f"{source}.includes('/overlay/')")
  page.keyboard.press('o')
  page.keyboard.press('ArrowRight')
  until(page, "document.getElementById('picture').alt === '01.png'")
  with Store(fake.path) as store:  # somebody else is faster
    store.judge(fake.images[1], 'bent', reviewer='ben')
  page.keyboard.press('1')
  until(
    page, "document.getElementById('said').textContent.includes('ben has judged it already: bent')"
  )
  until(page, "document.getElementById('picture').alt === '02.png'")
  with Store(fake.path) as store:
    assert [(v.reviewer, v.label) for v in store.verdicts()] == [('ben', 'bent')]


@pytest.mark.parametrize('size', [(1280, 900), (768, 1024)])
def test_nothing_is_cut_off(page, size, tmp_path):
  page.set_viewport_size({'width': size[0], 'height': size[1]})
  page.screenshot(path=tmp_path / 'page.png')
  assert (tmp_path / 'page.png').stat().st_size > 10_000
  wide = page.evaluate('document.documentElement.scrollWidth')
  assert wide <= size[0]
  for button in page.locator('#choices button').all():
    box = button.bounding_box()
    assert box['height'] >= 44  # for a finger
    assert 0 <= box['x'] <= box['x'] + box['width'] <= size[0]
  assert isinstance(tmp_path, pathlib.Path)
