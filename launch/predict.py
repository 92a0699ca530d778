"""Recognises a folder of pictures: python -m launch.predict --workdir=RUN --images=DIR --out=DIR.

Writes OUT/predictions.csv, OUT/predictions.json and, per picture, OUT/overlays/<name>.png: the
evidence for the predicted class, on the run's one colour scale. --nooverlays leaves them out.
"""

import csv
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
from absl import flags

from jaxdefect import data
from jaxdefect.evaluate import runner
from jaxdefect.explain import gradcam, overlays
from launch import command, experiment, reporting


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('images', None, 'folder of pictures', flag_values=values)
  flags.DEFINE_string('out', None, 'folder to write, must not exist yet', flag_values=values)
  flags.DEFINE_bool('overlays', True, 'draw the evidence into each picture', flag_values=values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir', 'images', 'out')
  out = pathlib.Path(values.out)
  if out.exists():
    raise ValueError(f'{out} exists already; --out must name a new folder')
  run = experiment.read_run(pathlib.Path(values.workdir))
  source = data.unlabelled(dir=values.images)
  data.verify(source, range(len(source)))
  batches = experiment.eval_batches(run.config, source, range(len(source)), source.classes)
  predictions, seen = runner.predict_all(run.method.predict, run.fitted, batches)

  rows = []
  for i, place in enumerate(seen['index']):
    best = int(predictions.scores[i].argmax())
    rows.append(
      {
        'image': source.names[place],
        'class': run.fitted.classes[best],
        'probability': round(float(predictions.probabilities[i, best]), 6),
        'scores': {
          name: round(float(s), 6) for name, s in zip(run.fitted.classes, predictions.scores[i])
        },
      }
    )
  # Everything is written beside and moved in one step, so that OUT is whole or absent.
  partial = out.with_name(out.name + '.tmp')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    _write_table(partial, rows, run.fitted.classes)
    if values.overlays and run.method.activations is not None:
      ceiling = reporting.read_ceiling(pathlib.Path(values.workdir))
      draw_overlays(partial / 'overlays', run, source, batches, ceiling)
    partial.replace(out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  print(f'{len(rows)} pictures: {out / "predictions.csv"}')


def _write_table(folder: pathlib.Path, rows: list[dict], classes: tuple[str, ...]) -> None:
  (folder / 'predictions.json').write_text(json.dumps(rows, indent=1) + '\n')
  with open(folder / 'predictions.csv', 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['image', 'class', 'probability', *(f'score:{c}' for c in classes)])
    for row in rows:
      scores = (row['scores'][c] for c in classes)
      writer.writerow([row['image'], row['class'], row['probability'], *scores])


def draw_overlays(folder, run, source, batches, ceiling) -> None:
  """One PNG per picture, under the picture's own path."""
  explain = jax.jit(functools.partial(gradcam.gradcam, run.method.activations, contrast=True))
  for batch in batches:
    _, maps = explain(run.fitted, batch)
    for row in np.flatnonzero(batch['valid']):
      name = source.names[int(batch['index'][row])]
      path = (folder / name).with_suffix('.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      image = source.read(int(batch['index'][row]))
      overlays.save(path, overlays.overlay(image, np.asarray(maps[row]), ceiling=ceiling))


if __name__ == '__main__':
  command.run(define, main)
