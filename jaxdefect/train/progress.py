"""What a person at the terminal sees of a run: a live bar, or plain lines where there is none."""

import datetime
import sys
import time

import rich.console
import rich.progress

# Plain lines go to files and CI logs, which nobody wants to scroll through for ever.
SECONDS_BETWEEN_LINES = 5.0
# Share of the time that the device waits for data, from which on the bar shows it.
WORTH_SAYING = 0.05


class Progress:
  """Loss, accuracy (where there is one), images per second and the time that is left.

  Args:
    steps: length of the run.
    start: steps that are done already.
    enabled: False shows nothing.
  """

  def __init__(self, steps: int, *, start: int = 0, enabled: bool = True):
    self._enabled = enabled
    self._steps, self._start = steps, start
    self._began = time.perf_counter()
    self._last_line = -SECONDS_BETWEEN_LINES
    self._bar: rich.progress.Progress | None = None
    console = rich.console.Console(stderr=True)
    if enabled and console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn('{task.description}'),
        rich.progress.TimeElapsedColumn(),
        console=console,
      )
      self._bar.start()
      self._task = self._bar.add_task('compiling', total=steps, completed=start)

  def update(self, step: int, means: dict[str, float]) -> None:
    """Shows the means of the last log interval."""
    text = describe(means)
    if step > self._start:
      left = (time.perf_counter() - self._began) / (step - self._start) * (self._steps - step)
      text += f'  ETA {datetime.timedelta(seconds=round(left))}'
    if self._bar is not None:
      self._bar.update(self._task, completed=step, description=text)
      return
    now = time.perf_counter() - self._began
    if step == self._steps or now - self._last_line >= SECONDS_BETWEEN_LINES:
      self._last_line = now
      self.note(f'step {step}/{self._steps}  {text}')

  def note(self, text: str) -> None:
    """Prints one line that stays, above the bar if there is one."""
    if self._bar is not None:
      self._bar.console.print(text, highlight=False, markup=False)
    elif self._enabled:
      print(text, file=sys.stderr, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.stop()


def describe(means: dict[str, float]) -> str:
  """The figures worth a glance.

  >>> describe({'loss': 0.51234, 'accuracy': 0.9, 'images_per_second': 312.4, 'other': 1.0})
  'loss 0.5123  accuracy 0.900  312 img/s'
  >>> describe({'images_per_second': 40.0, 'data_stall': 0.31})
  '40 img/s  waits for data 31%'
  """
  formats = {'loss': 'loss {:.4f}', 'accuracy': 'accuracy {:.3f}'}
  formats['images_per_second'] = '{:.0f} img/s'
  if means.get('data_stall', 0) >= WORTH_SAYING:
    formats['data_stall'] = 'waits for data {:.0%}'
  return '  '.join(text.format(means[name]) for name, text in formats.items() if name in means)
