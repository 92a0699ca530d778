"""Inspects pictures: python -m launch.predict --workdir=RUN --images=DIR --out=DIR.

--model=EXPORT in the place of --workdir runs what launch.convert wrote: a folder (by PyTorch) or an
ONNX file (by onnxruntime).

Writes OUT/predictions.csv, OUT/predictions.json and, per picture, OUT/overlays/<name>.png: the
evidence for the predicted class on the run's one colour scale (OUT/legend.png), the boxes that a
detector found, or the map of an anomaly method (and OUT/maps/<name>.npy, its raw values); of
part.jpg beside part.png they are called part.jpg.png and part.png.png. OUT/predictions.html shows
all of them with what was said, beside the picture as it is (OUT/pictures/, small). --nooverlays
leaves the pictures and the page out; --false_alarm_rate=0.01 sets another threshold for an anomaly
method.

Pictures that cannot be read are left out and named, with the reason, in OUT/unreadable.csv; the
exit code is then 1.
"""

import collections
import csv
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from jaxdefect import data
from jaxdefect.data import decode
from jaxdefect.explain import figures, overlays, predictions_page
from launch import command, experiment, exported_run, finished_run, tasks


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('model', None, 'what launch.convert wrote, instead', flag_values=values)
  flags.DEFINE_string('images', None, 'folder of pictures, or one', flag_values=values)
  flags.DEFINE_string('out', None, 'folder to write, must not exist yet', flag_values=values)
  flags.DEFINE_bool(
    'overlays', True, 'draw the evidence or the boxes into each picture', flag_values=values
  )
  command.define_false_alarm_rate(values)


def main(values: flags.FlagValues) -> None:
  if (values.workdir is None) == (values.model is None):
    raise ValueError('say either --workdir (a run) or --model (what launch.convert wrote)')
  command.require(values, 'images', 'out')
  out = pathlib.Path(values.out)
  if out.exists():
    raise ValueError(f'{out} exists already; --out must name a new folder')
  rate = {'false_alarm_rate': values.false_alarm_rate}
  run: finished_run.Finished | exported_run.ExportedRun
  if values.model is None:
    run = finished_run.read_run(pathlib.Path(values.workdir), **rate)
  else:
    run = exported_run.open_run(pathlib.Path(values.model), **rate)
  window = tuple(run.config.data.get('sixteen_bit_range', decode.FULL_RANGE))
  source = data.unlabelled(dir=values.images, sixteen_bit_range=window)
  damaged = data.unreadable(source, range(len(source)))
  if len(damaged) == len(source):
    first = next(iter(damaged.values()))
    raise ValueError(f'None of the {len(source)} images can be read. {first}')
  names = source.names
  source = source.subset([i for i in range(len(source)) if i not in damaged])
  batches = experiment.eval_batches(run.config, source, range(len(source)), source.classes)
  if isinstance(run, exported_run.ExportedRun):
    predictions, seen = run.predict_pictures(source)
  else:
    predictions, seen = tasks.predict_all(run.method, run.fitted, batches)
  task = tasks.of(predictions)
  rows = task.table(run, predictions, seen, source)
  # Everything is written beside and moved in one step, so that OUT is whole or absent.
  partial = out.with_name(out.name + '.tmp')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    (partial / 'predictions.json').write_text(json.dumps(rows, indent=1) + '\n')
    with open(partial / 'predictions.csv', 'w', newline='') as file:
      csv.writer(file).writerows(task.flat(rows, run.fitted.classes))
    if damaged:
      with open(partial / 'unreadable.csv', 'w', newline='') as file:
        lines = [[names[i], reason] for i, reason in damaged.items()]
        csv.writer(file).writerows([['image', 'reason'], *lines])
    if values.overlays:
      stems = _stems(source.names)
      drawn, plain = {}, {}
      for place, picture, raw in task.draw(run, source, batches, rows):
        drawn[source.names[place]] = f'overlays/{stems[place]}.png'
        overlays.save(_made(partial / drawn[source.names[place]]), picture)
        plain[source.names[place]] = f'pictures/{stems[place]}.jpg'
        overlays.save_small(_made(partial / plain[source.names[place]]), source.read(place))
        if raw is not None:
          np.save(_made(partial / 'maps' / f'{stems[place]}.npy'), raw)
      legend = task.legend(run) if drawn else None
      if legend is not None:
        figures.save(partial / 'legend.png', legend)
      text = predictions_page.html(
        rows,
        drawn,
        plain=plain,
        title=f'{run.directory.name} on {pathlib.Path(values.images).name}',
        legend='' if legend is None else 'legend.png',
        known=_known(run),
        unreadable={names[i]: reason for i, reason in damaged.items()},
      )
      (partial / 'predictions.html').write_text(text, encoding='utf-8', errors='backslashreplace')
    partial.replace(out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  of_all = f' of {len(names)}' if damaged else ''
  print(f'{len(rows)}{of_all} pictures: {out / "predictions.csv"}')
  if values.overlays:
    print(f'to look at: {out / "predictions.html"}')
  if damaged:
    left = data.Note('pictures that cannot be read', tuple(names[i] for i in damaged))
    why = out / 'unreadable.csv'
    print(f'error: {left}; the other {len(rows)} are done; the reasons: {why}', file=sys.stderr)
    sys.exit(1)


def _known(run: finished_run.Finished | exported_run.ExportedRun) -> dict:
  """What the run's own test part says of each of its answers, where it has a class for each."""
  report = run.report if isinstance(run, finished_run.Finished) else {}
  if 'confusion_matrix' not in report or tuple(report['classes']) != run.fitted.classes:
    return {}
  return predictions_page.tested(report['confusion_matrix'], report['classes'])


def _stems(names: Sequence[str]) -> list[str]:
  """The names without their endings, where that keeps them apart."""
  stems = [str(pathlib.PurePath(name).with_suffix('')) for name in names]
  count = collections.Counter(stems)
  return [stem if count[stem] == 1 else name for stem, name in zip(stems, names)]


def _made(path: pathlib.Path) -> pathlib.Path:
  """The path, in a folder that there is."""
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


if __name__ == '__main__':
  command.run(define, main)
