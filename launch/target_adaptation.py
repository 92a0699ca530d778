"""What learning to learn is worth: the target from few, some and most of its pictures.

One training serves all shares: only the fine-tuning and the test are repeated, and not where the
run itself was adapted to the same pictures. The test part stays the same for all of them.
"""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import train
from jaxdefect.contracts import ClassScores, Fitted, Method, State, to_fitted
from jaxdefect.data import duplicates, splits
from jaxdefect.evaluate import classification, runner
from jaxdefect.train import parallel
from launch import experiment, tasks

# Of the pictures that are adapted to, this share chooses the epoch.
VALIDATION = 0.2
EPISODES = 8  # batches of the training tasks on which the inner loop is measured
# The sizes over which the authors' code averages, relative to that of training (256 pixels).
RELATIVE_SIZES = tuple(size / 256 for size in (200, 224, 256, 300, 320))


def from_shares(directory: pathlib.Path, shares: Sequence[float]) -> dict[str, Any]:
  """Adapts a finished run to shares of its target's pictures, and scores the test part each time.

  Args:
    directory: a finished run of a config with ``episodes``.
    shares: of all pictures of the target, 0.05 say; a fifth of them chooses the epoch.

  Returns:
    ``metrics`` with ``<metric>/<percent>`` for every metric of ``evaluate.classification`` and
    ``epoch/<percent>`` (chosen) and ``support/<percent>`` (pictures); ``published_protocol/auroc``,
    what the authors' way would have said of the largest share: the largest over the epochs of the
    AUROC of hard decisions on the test part; ``five_sizes/auroc``, of the largest share with
    probabilities averaged over ``RELATIVE_SIZES``, as the authors' code averages; ``loss_drop``, by
    which share the inner loop lowers the query loss on episodes of the training tasks, and
    ``movement``, the size of what it adds to the parameters, relative to theirs; ``intervals``,
    ``history`` (of the fine-tunings), ``n`` and ``support`` (test pictures per class).

  Raises:
    ValueError: a share leaves a class out, or is larger than what does not test.
  """
  config = experiment.read_config(directory)
  seed = int(config.seeds[0])
  made = experiment.build(config, seed, split_file=directory / 'split.json')
  template = train.checkpoint.make_template(made.method, made.spec)
  state = train.checkpoint.load(directory, template)
  trained = to_fitted(state, made.spec.classes)
  own = train.load_fitted(directory / 'fitted.safetensors')
  predict = jax.jit(made.method.predict)
  groups = duplicates.find(made.source)
  key = jax.random.key(seed)
  test = experiment.eval_batches(config, made.source, made.split.test, made.spec.classes)

  def adapted(part: splits.Split, validation: Sequence[int]) -> Fitted:
    known = experiment.references(config, made.source, part.train, validation)
    return made.method.adapt(key, trained, known)

  metrics, intervals, history = {}, {}, {}
  report: dict[str, Any] = {}
  for share in shares:
    part = splits.fraction(
      made.source,
      train=share * (1 - VALIDATION),
      validation=share * VALIDATION,
      seed=seed,
      groups=groups,
    )
    if set(part.train + part.validation) & set(made.split.test):
      raise ValueError(f'a share of {share:g} of {made.source.name} reaches into its test part')
    fitted = own if _same_pictures(part, made.split) else adapted(part, part.validation)
    predictions, seen = runner.predict_all(predict, fitted, test, keys=tasks.SEEN)
    report = classification.evaluate(predictions, seen['label'], fitted.classes)
    name = f'{100 * share:g}'
    metrics |= {f'{metric}/{name}': value for metric, value in report['metrics'].items()}
    intervals |= {f'{metric}/{name}': ends for metric, ends in report['intervals'].items()}
    metrics[f'epoch/{name}'] = int(fitted.memory['epoch'])
    metrics[f'support/{name}'] = len(part.train + part.validation)
    history[name] = {k: np.asarray(v).tolist() for k, v in fitted.memory['history'].items()}
    if share == max(shares):
      averaged = _over_sizes(made, fitted, part.train, key)
      metrics['five_sizes/auroc'] = averaged['metrics']['auroc']
      intervals['five_sizes/auroc'] = averaged['intervals']['auroc']
      seen_test = adapted(part, made.split.test)
      best = np.max(seen_test.memory['history']['validation_balanced_accuracy'])
      metrics['published_protocol/auroc'] = float(best)
  metrics |= _inner_loop(made, state, seed)
  return {
    'metrics': metrics,
    'intervals': intervals,
    'history': history,
    'n': report['n'],
    'support': report['support'],
  }


def _same_pictures(one: splits.Split, other: splits.Split) -> bool:
  return (set(one.train), set(one.validation)) == (set(other.train), set(other.validation))


def _over_sizes(
  made: experiment.Experiment, fitted: Fitted, support: Sequence[int], key: jax.Array
) -> dict[str, Any]:
  """The test part, scored by probabilities that are means over ``RELATIVE_SIZES``.

  The references, and the statistics that belong to a support set, are those of each size; the
  weights are the fine-tuned ones at all of them.
  """
  config = made.config.copy_and_resolve_references()
  config.method.fine_tune_epochs = 0
  method = experiment.make_method(config, steps=config.steps)
  predict = jax.jit(method.predict)
  said, seen = [], {}
  for ratio in RELATIVE_SIZES:
    config.data.image_size = tuple(round(ratio * side) for side in made.config.data.image_size)
    known = experiment.references(config, made.source, support)
    test = experiment.eval_batches(config, made.source, made.split.test, fitted.classes)
    resized = method.adapt(key, fitted, known)
    predictions, seen = runner.predict_all(predict, resized, test, keys=tasks.SEEN)
    said.append(predictions.probabilities)
  mean = np.mean(said, axis=0)
  return classification.evaluate(ClassScores(mean, mean), seen['label'], fitted.classes)


def _inner_loop(made: experiment.Experiment, state: State, seed: int) -> dict[str, float]:
  """What the inner loop changes: the same episodes and parameters with it and without it."""
  config = made.config.copy_and_resolve_references()
  if not (config.steps and config.method.inner_steps):
    return {}
  config.method.inner_steps = 0
  without = experiment.make_method(config, steps=config.steps)
  episodes = list(itertools.islice(experiment.training_stream(made, seed), EPISODES))

  def means(method: Method) -> dict[str, float]:
    step = parallel.compile_step(method.step, parallel.ONE)
    values = []
    for batch in episodes:
      # A step gives its state's buffers away.
      _, scalars = step(jax.random.key(seed), jax.tree.map(jnp.copy, state), batch)
      values.append({key: float(total / count) for key, (total, count) in scalars.items()})
    return {key: float(np.mean([value[key] for value in values])) for key in values[0]}

  before, after = means(without), means(made.method)
  return {'loss_drop': 1 - after['loss'] / before['loss'], 'movement': after['movement']}
