"""Trains, evaluates and reports: python -m launch.train --config=FILE[:variant] [--workdir=DIR].

Writes DIR/config.json, split.json, augmentation.png (random views of each class, where there are
any), checkpoints/, metrics.jsonl, fitted.safetensors, report.json and report.html. A DIR that holds
an unfinished run of the same config goes on where it stopped: Ctrl-C and SIGTERM write a checkpoint
first, and --config.checkpoint_every says what a power cut may cost. With several seeds
(--config.seeds='(0,1,2)') each gets DIR/seed_<n>/ and DIR/report.json their mean.

--config.devices=8 trains on eight devices. Several processes, each with its own devices and all of
them on the same DIR, are started by Slurm, Open MPI or Kubernetes, or by hand with --coordinator,
--processes and --process; process 0 writes.
"""

import json
import pathlib
import time

import jax
from absl import flags
from ml_collections import ConfigDict

from jaxdefect import train
from jaxdefect.contracts import to_fitted
from jaxdefect.data import split_record, splits
from jaxdefect.evaluate import classification
from jaxdefect.evaluate.seeds import aggregate
from jaxdefect.explain import figures, report, sections
from jaxdefect.train.fit import check_arguments
from launch import alone, augmentation, calibration, command, experiment, reporting, stopping, tasks
from launch.versions import stamp

_FEW = 20  # test images
_FOLDS = 5  # that launch.cross_validate trains beside a model without each picture


def train_seed(
  config: ConfigDict, seed: int, directory: pathlib.Path, *, progress: bool = True
) -> dict:
  """Trains one seed into ``directory`` and returns its report; goes on with what is unfinished.

  Of several processes only the writer evaluates and has a report; the others return {}.
  """
  train.processes.wait(f'{directory} begins')  # the writer is done with the seed before
  if (directory / 'report.json').exists():
    experiment.write_config(config, directory)  # refuses another config
    return json.loads((directory / 'report.json').read_text())
  started = time.monotonic()
  split_file = directory / 'split.json'
  made = experiment.build(config, seed, split_file=split_file)
  stream = experiment.training_stream(made, seed)  # what is wrong with the pictures is met here
  sheet = augmentation.sheet(made, seed)  # and what is wrong with their views here
  key_train, key_adapt = jax.random.split(jax.random.key(seed))
  known = experiment.references(config, made.source, reference_images(made), made.split.validation)
  evaluate = None
  if config.evaluate_every and 'episodes' in config:
    evaluate = reporting.validation_tasks(made, key_adapt, seed=seed)
  elif config.evaluate_every and made.split.validation:
    evaluate = reporting.validation(made, known, key_adapt)
  settings = {
    'steps': config.steps,
    'evaluate': evaluate,
    'evaluate_every': config.evaluate_every or None,
    'best': config.best or None,
    'log_every': config.log_every,
    'checkpoint_every': config.checkpoint_every or None,
    'tensorboard': config.tensorboard,
  }
  check_arguments(**settings)  # fit does too, but a folder with files would refuse what is mended
  if train.processes.is_writer():
    if progress:
      print(command.as_installed(_summary(made)), flush=True)
    experiment.write_config(config, directory)
    if sheet is not None:
      figures.save(directory / augmentation.FILE, sheet)
    if not split_file.exists():
      splits.write(split_file, made.source, made.split)

  fit_started = time.monotonic()
  with alone.in_folder(directory), stopping.when_asked() as stop:
    state = train.fit(
      made.method,
      key_train,
      made.spec,
      stream,
      directory=directory,
      pretrained=made.pretrained,
      references=experiment.references(config, made.source, made.split.train),
      devices=config.devices,
      progress=progress,
      stop=stop,
      **settings,
    )
  if not train.processes.is_writer():
    return {}
  if config.best:
    state = train.checkpoint.load(
      directory, train.checkpoint.make_template(made.method, made.spec), step='best'
    )
  trained = to_fitted(state, made.spec.classes)
  fitted = jax.block_until_ready(made.method.adapt(key_adapt, trained, known))
  fit_seconds = time.monotonic() - fit_started
  fitted = calibration.calibrate(made, key_adapt, trained, fitted, known)
  seconds = time.monotonic() - started
  train.save_fitted(directory / 'fitted.safetensors', fitted)
  return reporting.write(
    made, fitted, known, directory, seed=seed, seconds=seconds, fit_seconds=fit_seconds, sheet=sheet
  )


def _summary(made: experiment.Experiment) -> str:
  """``folder: 56 images of 2 classes (bent, good); train 20, test 36; 3 groups of near-copies``."""
  source, split = made.source, made.split
  parts = ((part, len(getattr(split, part))) for part in split_record.PARTS)
  said = [
    f'{source.name}: {len(source)} images of {len(source.classes)} classes '
    f'({", ".join(source.classes)})',
    ', '.join(f'{part} {count}' for part, count in parts if count),
  ]
  notes = []
  copies = split.report.get('near_duplicates')
  if copies:
    said.append(f'groups of near-copies: {len(copies)}, each on one side')
  if split.report.get('left_out'):
    said.append(f'left out with their group: {len(split.report["left_out"])}')
  if 0 < len(split.test) < _FEW:
    notes.append(
      f'only {len(split.test)} to test, so the interval will be wide; launch.cross_validate '
      f'without --frozen tests every picture, in some {len(source) + _FOLDS} trainings'
    )
  return '\nnote: '.join(['; '.join([*said, *map(str, source.notes)]), *notes])


def reference_images(made: experiment.Experiment) -> tuple[int, ...]:
  """What ``adapt`` refers to: the first k training images of each class, or all.

  Classes that were not trained on bring references of their own.
  """
  k = made.config.references_per_class
  chosen: dict[int, list[int]] = {}
  for i in made.split.train:
    images = chosen.setdefault(int(made.source.labels[i]), [])
    if not k or len(images) < k:
      images.append(i)
  return tuple(i for images in chosen.values() for i in images) + made.split.references


def train_seeds(config: ConfigDict, directory: pathlib.Path, *, progress: bool = True) -> dict:
  """Trains every seed of the config and returns the report over them."""
  seeds = tuple(config.seeds)
  if len(seeds) == 1:
    return train_seed(config, seeds[0], directory, progress=progress)
  reports = []
  for seed in seeds:
    single = config.copy_and_resolve_references()
    single.seeds = (seed,)
    reports.append(train_seed(single, seed, directory / f'seed_{seed}', progress=progress))
  if not train.processes.is_writer():
    return {}
  experiment.write_config(config, directory)
  summary = aggregate(reports)
  summary |= {
    'seeds': list(seeds),
    'seconds': round(sum(r['seconds'] for r in reports), 1),
    **stamp(config),
    'start_weights': reports[0]['start_weights'],
    'versions': reports[0]['versions'],
    'warnings': sorted({w for r in reports for w in r['warnings']}),
  }
  if all('floor' in r for r in reports):
    floors = aggregate([r['floor'] for r in reports])
    summary['floor'] = {**floors, 'name': reports[0]['floor']['name']}
  title = f'{reporting.title(config)}, {len(seeds)} seeds'
  report.write_report(directory, summary, title=title)
  return json.loads((directory / 'report.json').read_text())


def define(values: flags.FlagValues) -> None:
  command.define_config(values)
  command.define_processes(values)
  flags.DEFINE_string('workdir', None, 'folder of the run', flag_values=values)


def _of_others(config: ConfigDict, directory: pathlib.Path) -> str:
  """``, from other pictures than there are now (50 then, 51 now)``, where that can be seen."""
  single = directory if len(config.seeds) == 1 else directory / f'seed_{config.seeds[0]}'
  path = single / 'split.json'
  try:
    names = experiment.load_source(config.data).names
    then = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):  # pictures may be gone by now: the figures are what they were
    return ''
  given = {name for part in split_record.PARTS for name in then[part]}
  count = then['report'].get('images', len(names))
  if count == len(names) and given <= set(names):
    return ''
  return f', from other pictures than there are now ({count} then, {len(names)} now)'


def main(values: flags.FlagValues) -> None:
  config = command.config(values)
  train.processes.start(
    coordinator=values.coordinator, count=values.processes, index=values.process
  )
  directory = pathlib.Path(values.workdir or f'runs/{command.config_name()}')
  finished = (directory / 'report.json').exists()
  result = train_seeds(config, directory)
  if not result:
    return  # the writer says the rest
  if finished:
    others = _of_others(config, directory)
    print(f'{directory} was finished before{others}; another --workdir trains anew')
  for name in tasks.HEADLINES:
    if name in result['metrics'] and not classification.adds_nothing(result, name):
      ends = result['intervals'].get(name, (float('nan'),) * 2)
      low, high = (sections.share(end) for end in ends)
      print(f'{name}: {result["metrics"][name]:.4f} [{low:.4f}, {high:.4f}]')
  if 'floor' in result:
    floor = result['floor']
    print(f'{floor["name"]}: accuracy {floor["metrics"]["accuracy"]:.4f}')
  print(f'report: {directory / "report.html"}')


if __name__ == '__main__':
  command.run(define, main)
