"""Which lot each picture is of, from a table that a spreadsheet writes.

Defects come in bursts: die wear, a clogged nozzle. Pictures of one lot show one burst, so a split
that tears a lot apart tests what it has trained on.
"""

import csv
import os
import pathlib
from collections.abc import Sequence

_COLUMNS = ('image', 'lot')
_SHOWN = 5


def read_lots(path: str | os.PathLike[str], names: Sequence[str]) -> tuple[str, ...]:
  """Reads the lot of each picture.

  Args:
    path: a CSV file with a header that has ``image`` and ``lot``; further columns are ignored.
    names: [N] the pictures of the data set, as its ``names``.

  Returns:
    [N] the lots, ``''`` for a picture that the table does not mention or whose lot is empty.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a column is missing, or the table names a picture twice or one that is not there.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'The file of lots {path} does not exist.')
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      table = csv.DictReader(file)
      found = tuple(table.fieldnames or ())
      rows = list(table)
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f'The file of lots {path} is no table in UTF-8: {error}.') from error
  for column in _COLUMNS:
    if column not in found:
      raise ValueError(
        f'The file of lots {path} has the columns {", ".join(found) or "none"}; image and lot are '
        'needed.'
      )
  lot_of: dict[str, str] = {}
  for row in rows:
    image = (row['image'] or '').strip().replace('\\', '/')
    if image in lot_of:
      raise ValueError(f'The file of lots {path} names the image {image} twice.')
    lot_of[image] = (row['lot'] or '').strip()
  unknown = sorted(lot_of.keys() - set(names))
  if unknown:
    more = f' and {len(unknown) - _SHOWN} more' if len(unknown) > _SHOWN else ''
    raise ValueError(
      f'The file of lots {path} names images that are not there: {", ".join(unknown[:_SHOWN])}'
      f'{more}; an image is named by its path below the data folder.'
    )
  return tuple(lot_of.get(name, '') for name in names)
