"""What the processes of test_side_by_side do."""

import pathlib
import time


def write(path: pathlib.Path, seconds: float) -> None:
  """Says when it began and ended; a name with 'bad' fails."""
  began = time.time()
  print(f'at work on {path.name}', flush=True)
  if 'bad' in path.name:
    raise ValueError('this one cannot be done')
  time.sleep(seconds)
  path.write_text(f'{began} {time.time()}')
