"""From a config to the things it names: the data, the split, the method, the start weights.

Everything that can be wrong with the user's input is found here, before a file is written.
"""

import dataclasses
import inspect
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxdefect import data, methods, optim, train
from jaxdefect.contracts import DataSpec, Method, References
from jaxdefect.data import batching, box_splits, decode, episodes, hold_out, leakage, splits
from jaxdefect.data.good_parts import GOOD
from jaxdefect.train import parallel
from launch import checks, command

_NOT_FOR_SOURCE = ('name', 'image_size', 'interpolation', 'max_boxes', 'hold_out')

# split.kind -> the function that makes it; the last three are for boxes.
SPLITS = {
  'few_shot': splits.few_shot,
  'fraction': splits.fraction,
  'few_defects': splits.few_defects,
  'good_only': splits.good_only,
  'unseen_classes': splits.unseen_classes,
  'naive': leakage.naive_split,  # for comparison alone
  'boxes_few_shot': box_splits.boxes_few_shot,
  'boxes_fraction': box_splits.boxes_fraction,
  'boxes_unseen': box_splits.boxes_unseen,
}

# method.dtype -> what the network computes in; parameters, losses and distances stay float32.
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Experiment(NamedTuple):
  """A config, made real for one seed."""

  config: ConfigDict
  source: data.Source
  split: splits.Split
  spec: DataSpec
  method: Method
  pretrained: Any  # variables for Method.init, or None
  pretrained_source: str
  tasks: dict[str, data.Source]  # other products to learn from; none for ordinary training


def keyword_arguments(function: Any, values: dict, *, where: str) -> dict:
  """Checks names against a signature: one sentence instead of a TypeError."""
  allowed = inspect.signature(function).parameters
  for name in values:
    if name not in allowed:
      raise ValueError(f'{where} has no setting {name!r} (it has {", ".join(allowed)})')
  return values


def load_source(config: ConfigDict) -> data.Source:
  """Opens the data set that ``config.data`` names, without what is held out of it.

  The one door to training: where a hold-out was set aside, its images do not exist behind it.
  """
  source, divided = load_divided(config)
  if divided is None:
    return source
  held = data.Note('images held out', tuple(source.names[i] for i in divided.held))
  return dataclasses.replace(source.subset(divided.free), notes=(*source.notes, held))


def load_divided(config: ConfigDict) -> tuple[data.Source, hold_out.Divided | None]:
  """The whole data set of ``config.data``, and which of it is held out, where anything is."""
  source = load_whole(config)
  path = hold_out_file(config)
  if not path.exists():
    if config.get('hold_out'):
      raise ValueError(
        f'data.hold_out is {path}, which does not exist; launch.cross_validate sets one aside'
      )
    return source, None
  return source, hold_out.divide(source, hold_out.read(path))


def hold_out_file(config: ConfigDict) -> pathlib.Path:
  """Where the hold-out of ``config.data`` is written down: ``hold_out``, else beside the images."""
  if config.get('hold_out'):
    return pathlib.Path(config.hold_out)
  # Made data have no folder, and nothing is held out of them unless a file is named.
  return pathlib.Path(config.get('dir') or os.devnull) / hold_out.FILE


def load_whole(config: ConfigDict) -> data.Source:
  """The whole data set of ``config.data``, before anything is set aside in it."""
  settings = {k: v for k, v in config.to_dict().items() if k not in _NOT_FOR_SOURCE}
  for name in ('dir', 'annotations'):
    if settings.get(name) == '':  # the working directory would be read in its place
      raise ValueError(
        f'data.{name} is not set; say where your data are: --config.data.{name}=PATH'
      )
  return data.sources.load(config.name, **settings)


def make_split(config: ConfigDict, source: data.Source, seed: int) -> splits.Split:
  """Splits by ``config.split``: its ``kind`` is a function of ``data.splits``."""
  settings = config.to_dict()
  kind = settings.pop('kind')
  if kind not in SPLITS:
    raise ValueError(f'split.kind is {kind!r}; it can be {", ".join(SPLITS)}')
  arguments = keyword_arguments(SPLITS[kind], settings, where=f'split {kind}')
  try:
    return SPLITS[kind](source, seed=seed, **arguments)
  except decode.Unreadable:
    raise  # is no matter of the split
  except ValueError as error:
    numbers = (f'--config.split.{k}={v}' for k, v in settings.items() if isinstance(v, int | float))
    notes = ''.join(f'; {note}' for note in source.notes)
    raise ValueError(f'{error} The split is {" ".join(numbers)}{notes}.') from None


def make_method(config: ConfigDict, *, steps: int, axis_name: str | None = None) -> Method:
  """Builds the method of ``config.method`` with the optimiser of ``config.optimizer``."""
  settings = config.method.to_dict()
  factory = methods.load(settings.pop('name'))
  optimizer = config.optimizer.to_dict()
  name = optimizer.pop('name')
  if name not in ('adam', 'sgd'):
    raise ValueError(f'optimizer.name is {name!r}; it can be adam or sgd')
  make_optimizer = getattr(optim, name)
  keyword_arguments(make_optimizer, optimizer, where=f'optimizer {name}')
  settings['optimizer'] = make_optimizer(steps=max(steps, 1), **optimizer)
  settings['axis_name'] = axis_name
  if 'dtype' in settings:
    settings['dtype'] = DTYPES.get(settings['dtype'])
    if settings['dtype'] is None:
      raise ValueError(f'method.dtype is {config.method.dtype!r}; it can be {", ".join(DTYPES)}')
  return factory(**keyword_arguments(factory, settings, where=f'method {config.method.name}'))


def load_pretrained(config: ConfigDict) -> tuple[Any, str]:
  """Loads the start weights of ``config.pretrained``; ``(None, 'random')`` where none are named.

  A folder is a finished run, or what ``launch.convert`` made of one; its backbone is taken.
  """
  settings = config.pretrained
  if not settings.weights:
    return None, 'random'
  folder = pathlib.Path(settings.weights)
  exported = (folder / 'model.json').is_file()
  if folder.is_dir() and not exported:
    return _backbone_of_run(folder, config)
  from jaxdefect.convert import weights_from_torch

  wanted = {'backbone': config.method.backbone, 'stages': settings.stages}
  if exported:
    loaded = weights_from_torch.load_exported(folder, **wanted)
  else:
    try:
      path = weights_from_torch.find(settings.weights, weights_dir=settings.dir or None)
    except ValueError as error:
      raise ValueError(
        f'{error}; --config.pretrained.weights=FILE names one, and docs/your_own_images.md where '
        'they come from'
      ) from None
    loaded = weights_from_torch.load(path, **wanted)
  # A method without the setting never moves them.
  settable = 'update_statistics' in inspect.signature(methods.load(config.method.name)).parameters
  if loaded.folded and config.method.get('update_statistics', settable):
    raise ValueError(
      f'{settings.weights} has BatchNorm folded into the kernels, so its statistics must stay: '
      'set --config.method.update_statistics=False'
    )
  variables = {k: {'backbone': v} for k, v in loaded.variables.items()}
  return variables, f'{loaded.source} (sha256 {loaded.sha256[:12]})'


def _backbone_of_run(directory: pathlib.Path, config: ConfigDict) -> tuple[Any, str]:
  """The backbone of a finished run, as ``Method.init`` takes it."""
  fitted = train.load_fitted(directory / 'fitted.safetensors')
  if 'backbone' not in fitted.params:
    raise ValueError(f'pretrained.weights is the run {directory}, whose method has no backbone')
  theirs = read_config(directory).method
  for name in ('backbone', 'stages', 'width'):
    ours = config.method.get(name)
    if name in theirs and name in config.method and theirs[name] != ours:
      raise ValueError(
        f'pretrained.weights is the run {directory} with method.{name} = {theirs[name]}, '
        f'but this run has {ours}'
      )
  variables = {'params': {'backbone': fitted.params['backbone']}}
  statistics = fitted.model_state.get('batch_stats', {})
  if 'backbone' in statistics:
    variables['batch_stats'] = {'backbone': statistics['backbone']}
  return variables, f'backbone of the run {"/".join(directory.resolve().parts[-2:])}'


def build(config: ConfigDict, seed: int, *, split_file: pathlib.Path | None = None) -> Experiment:
  """Makes everything that one seed of a config needs; raises one sentence on bad input.

  Args:
    config: the run's settings.
    seed: of the split.
    split_file: a split that was written before is read from here; it must fit the data.

  Returns:
    The ``Experiment``; nothing has been written.
  """
  source = load_source(config.data)
  if split_file is not None and split_file.exists():
    split = splits.read(split_file, source)
  else:
    split = make_split(config.split, source, seed)
  batching.verify(source, split.train + split.validation + split.references + split.test)
  # Classes that are kept for later (unseen_classes, boxes_unseen) are unknown to the training.
  classes = classes_of(config, source, split.train)
  tasks = load_tasks(config, 'tasks', target=source.name)
  spec = DataSpec(
    batch=batch_spec(config),
    classes=classes,
    counts=(source.counts if max_boxes(config) is None else source.box_counts)(
      split.train, classes=classes
    ),
  )
  parallel.layout(config.devices)  # refuses more than there are
  axis_name = parallel.axis_name(config.devices)
  method = make_method(config, steps=config.steps, axis_name=axis_name)
  pretrained, pretrained_source = load_pretrained(config)
  if pretrained is not None:  # what does not fit is said before a file is written
    jax.eval_shape(lambda key: method.init(key, spec, pretrained), jax.random.key(0))
  checks.classes(config, classes)
  checks.calibration(config, source, split)
  return Experiment(config, source, split, spec, method, pretrained, pretrained_source, tasks)


def load_tasks(config: ConfigDict, key: str, *, target: str = '') -> dict[str, data.Source]:
  """Opens the products that ``config[key]`` names, where it names any.

  An entry with ``every`` is a folder of products, each of them a task. The target, a product of
  this name, is left out.
  """
  found: dict[str, data.Source] = {}
  for name, entry in (config.get(key) or {}).items():
    settings = entry.to_dict()
    if settings.pop('every', False):
      if not settings.get('dir'):
        continue  # no further products
      collection = data.sources.load_tasks(settings.pop('name'), **settings)
      for product, source in collection.items():
        path = pathlib.Path(settings['dir']) / product / hold_out.FILE
        if path.exists():
          source = source.subset(hold_out.divide(source, hold_out.read(path)).free)
        found[f'{name}/{product}'] = source
    else:
      found[name] = load_source(entry)
  return {name: source for name, source in found.items() if source.name != target}


def batch_spec(config: ConfigDict) -> Any:
  """The shapes of one device's training batch: of pictures, or of the episodes of some tasks."""
  size = tuple(config.data.image_size)
  key = 'episodes.tasks_per_step' if 'episodes' in config else 'batch_size'
  number = config.episodes.tasks_per_step if 'episodes' in config else config.batch_size
  if number % config.devices:
    raise ValueError(
      f'{key} is {number}, which {config.devices} devices cannot share evenly; make it a multiple'
    )
  if 'episodes' not in config:
    return batching.batch_spec(
      config.batch_size // config.devices, size, max_boxes=max_boxes(config)
    )
  return episodes.episode_spec(
    config.episodes.tasks_per_step // config.devices,
    size,
    support=config.episodes.support,
    query=config.episodes.query,
    references=config.episodes.references,
  )


def training_stream(made: Experiment, seed: int) -> Any:
  """Endless training batches that resume exactly: pictures of the split, or episodes of tasks.

  Of several processes each gets its share.
  """
  config = made.config
  size, interpolation = tuple(config.data.image_size), config.data.interpolation
  share = jax.process_index(), jax.process_count()
  if made.tasks:
    return episodes.episode_batches(
      made.tasks,
      image_size=size,
      interpolation=interpolation,
      seed=seed,
      shard=share,
      **keyword_arguments(episodes.episode_batches, config.episodes.to_dict(), where='episodes'),
    )
  return batching.train_batches(
    made.source,
    made.split.train,
    batch_size=config.batch_size,
    image_size=size,
    interpolation=interpolation,
    classes=made.spec.classes,
    max_boxes=max_boxes(config),
    straddle_epochs=len(made.split.train) < config.batch_size,
    shard=share,
    seed=seed,
  )


def max_boxes(config: ConfigDict) -> int | None:
  """How many boxes a batch has room for per image; None where the data have labels alone."""
  return config.data.max_boxes if 'max_boxes' in config.data else None


def classes_of(config: ConfigDict, source: data.Source, indices: Any) -> tuple[str, ...]:
  """The classes among some images, or among their boxes, in the order of the source.

  Where only good images train, all classes of the source, the good one first: they are tested.
  """
  if config.split.kind == 'good_only':
    return (GOOD, *(name for name in source.classes if name != GOOD))
  count = source.counts if max_boxes(config) is None else source.box_counts
  return tuple(name for name, n in zip(source.classes, count(indices)) if n)


def eval_batches(config: ConfigDict, source: data.Source, indices: Any, classes: tuple[str, ...]):
  """The images at ``indices`` once each, in padded batches whose labels count in ``classes``."""
  return batching.eval_batches(
    source,
    indices,
    batch_size=config.batch_size,
    image_size=tuple(config.data.image_size),
    interpolation=config.data.interpolation,
    classes=classes,
    max_boxes=max_boxes(config),
    # A network that compares gets the source's own pictures to compare with.
    reference='episodes' in config and 'reference' in source.annotations,
  )


def references(
  config: ConfigDict, source: data.Source, indices: Any, validation: Any = ()
) -> References:
  """The images at ``indices`` as ``adapt`` takes them, labelled with the classes among them."""
  classes = classes_of(config, source, indices)
  batches = eval_batches(config, source, indices, classes)
  checks = eval_batches(config, source, validation, classes) if len(validation) else None
  return References(classes=classes, batches=batches, validation=checks)


def write_config(config: ConfigDict, directory: pathlib.Path) -> None:
  """Writes ``config.json``, or refuses a folder that holds a run of another config."""
  path = directory / 'config.json'
  text = config.to_json(indent=1)
  if path.exists():
    there, here = _without_devices(path.read_text()), _without_devices(text)
    if there != here:
      raise ValueError(
        f'{directory} holds a run of another config ({_difference(there, here)}); '
        'choose another --workdir'
      )
    return
  directory.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix('.tmp')
  partial.write_text(text)
  partial.replace(path)


def _difference(there: dict, here: dict) -> str:
  """The first setting that differs: ``steps is 100 there and 200 here, and 2 more``."""
  flat = [command.flatten(one) for one in (there, here)]
  names = [name for name in flat[0] | flat[1] if flat[0].get(name) != flat[1].get(name)]
  values = [repr(one[names[0]]) if names[0] in one else 'missing' for one in flat]
  more = f', and {len(names) - 1} more' if len(names) > 1 else ''
  return f'{names[0]} is {values[0]} there and {values[1]} here{more}'


def _without_devices(text: str) -> dict:
  """What makes a run: on how many devices it goes on changes nothing."""
  return {k: v for k, v in json.loads(text).items() if k != 'devices'}


def read_config(directory: pathlib.Path) -> ConfigDict:
  """Reads the ``config.json`` of a run."""
  path = directory / 'config.json'
  if not path.exists():
    raise ValueError(f'{directory} holds no run: there is no config.json in it')
  return ConfigDict(json.loads(path.read_text()))


def read_split(directory: pathlib.Path, config: ConfigDict) -> tuple[data.Source, splits.Split]:
  """The data set of a run and the split that it was trained on."""
  source = load_source(config.data)
  return source, splits.read(directory / 'split.json', source)
