"""Episodes: balanced, without copies on two sides, every task equally often, exact to resume."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import episodes
from jaxdefect.data.source import Source


def _task(name, good=12, defect=9, *, level=0, groups=None, reference=False, broken=()):
  """Image i shows the levels (level, i, 0); its own reference (level, i, 200)."""
  size = good + defect

  def read(i, own=0):
    if i in broken:
      raise ValueError(f'The image {name}/{i:02d}.png cannot be read: it has no bytes.')
    image = np.zeros((6, 5, 3), np.uint8)
    image[...] = level, i, own
    return image

  annotations = {}
  if reference:
    annotations['reference'] = [read(i, 200) for i in range(size)]
  return Source(
    name=name,
    classes=('good', 'defect'),
    names=tuple(f'{name}/{i:02d}.png' for i in range(size)),
    labels=np.arange(size) >= good,
    read=read,
    groups=groups,
    annotations=annotations,
  )


def _tasks(number=3, **settings):
  return {f't{k}': _task(f't{k}', 12 + k, 9, level=40 * k, **settings) for k in range(number)}


def _groups(tasks):
  """Every image on its own, so that nothing has to be compared."""
  return {name: np.arange(len(source)) for name, source in tasks.items()}


def _batches(tasks, **settings):
  defaults = {
    'tasks_per_step': 2, 'support': 6, 'query': 4, 'image_size': (8, 7), 'seed': 0,
    'groups': _groups(tasks),
  }  # fmt: skip
  return data.episode_batches(tasks, **{**defaults, **settings})


def _owner(tasks, index):
  """Which task and which of its images an ``index`` is."""
  for name, source in tasks.items():
    if index < len(source):
      return name, int(index)
    index -= len(source)
  raise AssertionError(index)


@pytest.mark.parametrize('references', [1, 3])
def test_batches_have_the_shapes_of_the_spec(references):
  spec = data.episode_spec(2, (8, 7), support=6, query=4, references=references)
  batch = next(_batches(_tasks(), references=references))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
    lambda x: (x.shape, x.dtype), spec
  )
  assert spec['support']['reference'].shape == (2, 6, references, 8, 7, 3)
  assert spec['query']['image'].shape == (2, 4, 8, 7, 3)


def test_pixels_labels_and_index_belong_together():
  tasks = _tasks()
  batches = _batches(tasks)
  for _ in range(20):
    for batch in next(batches).values():
      assert batch['valid'].all()
      for row in range(2):
        owners = [_owner(tasks, index) for index in batch['index'][row]]
        assert len({name for name, _ in owners}) == 1
        source = tasks[owners[0][0]]
        for (name, i), image, label in zip(owners, batch['image'][row], batch['label'][row]):
          assert image[0, 0].tolist() == [40 * int(name[1:]), i, 0]
          assert label == source.labels[i]


@pytest.mark.parametrize(('support', 'defects'), [(2, 1), (5, 2), (6, 3)])
def test_draws_are_balanced_and_hold_no_image_twice(support, defects):
  batches = _batches(_tasks(), support=support)
  for _ in range(10):
    batch = next(batches)['support']
    assert (batch['label'].sum(axis=1) == defects).all()
    assert all(len(set(row)) == support for row in batch['index'].tolist())


def test_a_small_pool_is_drawn_whole_before_any_image_comes_again():
  tasks = {'t': _task('t', 10, 6)}  # 4 of the 6 defects are in the support pool.
  batches = _batches(tasks, tasks_per_step=1, support=20)
  batch = next(batches)['support']
  times = collections.Counter(batch['index'][batch['label'] == 1].tolist())
  assert len(times) == 4
  assert max(times.values()) - min(times.values()) <= 1


def test_rows_are_mixed():
  """Were the good ones first, that alone would tell the classes apart."""
  batches = _batches(_tasks())
  first = [next(batches)['support']['label'][:, 0] for _ in range(50)]
  assert 0.3 < np.mean(first) < 0.7


def test_support_and_query_never_share_a_group():
  groups = tuple(f'shot {i // 3}' for i in range(24))
  tasks = {'t': _task('t', 12, 12, groups=groups)}
  batches = _batches(tasks, tasks_per_step=1, groups={'t': [i // 3 for i in range(24)]})
  seen = {'support': set(), 'query': set()}
  for _ in range(60):
    batch = next(batches)
    for part, groups in seen.items():
      groups |= {index // 3 for index in batch[part]['index'][0].tolist()}
  assert not seen['support'] & seen['query']
  assert len(seen['support']) + len(seen['query']) == 8


def test_references_are_other_good_images_of_the_support_pool():
  groups = [i // 2 for i in range(24)]
  tasks = {'t': _task('t', 16, 8)}
  batches = _batches(tasks, tasks_per_step=1, references=3, groups={'t': groups})
  pools = data.task_pools('t', tasks['t'], seed=0, groups=groups)
  for _ in range(40):
    for batch in next(batches).values():
      for index, references in zip(batch['index'][0], batch['reference'][0]):
        shown = references[:, 0, 0, 1].tolist()
        assert len(set(shown)) == 3
        assert all(i < 16 and i in pools.support for i in shown)
        assert all(i // 2 != index // 2 for i in shown)


def test_references_of_the_image_itself_come_first():
  tasks = {'t': _task('t', reference=True)}
  batch = next(_batches(tasks, tasks_per_step=1, references=2))
  for part in batch.values():
    np.testing.assert_array_equal(part['reference'][0, :, :, 0, 0, 2], 200)
    own = np.repeat(part['index'][0][:, None], 2, axis=1)
    np.testing.assert_array_equal(part['reference'][0, :, :, 0, 0, 1], own)


def test_every_task_is_seen_equally_often_in_another_order():
  tasks = _tasks(5)
  batches = _batches(tasks)
  order = []
  for _ in range(20):
    batch = next(batches)
    order += [_owner(tasks, row[0])[0] for row in batch['support']['index']]
  rounds = [tuple(order[k : k + 5]) for k in range(0, 40, 5)]
  assert all(sorted(one) == sorted(tasks) for one in rounds)
  assert len(set(rounds)) > 4


@pytest.mark.parametrize('cache_bytes', [0, 1000, 2**20])
def test_resume_is_exact(cache_bytes):
  tasks = _tasks()
  batches = _batches(tasks, cache_bytes=cache_bytes)
  for _ in range(5):
    next(batches)
  state = batches.get_state()
  later = [next(batches) for _ in range(4)]
  resumed = _batches(tasks, cache_bytes=cache_bytes)
  resumed.set_state(state)
  for expected in later:
    jax.tree.map(np.testing.assert_array_equal, next(resumed), expected)


def test_cache_changes_nothing_and_reads_once():
  tasks = _tasks(2)
  times = collections.Counter()

  def counted(source):
    def read(i):
      times[source.name, i] += 1
      return source.read(i)

    return dataclasses.replace(source, read=read)

  cached = _batches({name: counted(source) for name, source in tasks.items()})
  plain = _batches(tasks, cache_bytes=0)
  for _ in range(8):
    jax.tree.map(np.testing.assert_array_equal, next(cached), next(plain))
  assert set(times.values()) == {1}
  assert len(times) == sum(map(len, tasks.values()))


def test_same_seed_same_episodes_and_other_seed_other():
  def drawn(seed):
    batches = _batches(_tasks(), seed=seed)
    return [next(batches)['support']['index'].tolist() for _ in range(3)]

  assert drawn(3) == drawn(3)
  assert drawn(3) != drawn(4)


def test_another_task_more_leaves_the_draws_of_a_task_as_they_are():
  def first_visit(tasks):
    batches = _batches(tasks)
    while True:
      batch = next(batches)
      for row, index in enumerate(batch['support']['index']):
        if _owner(tasks, index[0])[0] == 't0':
          return batch['support']['image'][row]

  np.testing.assert_array_equal(first_visit(_tasks(2)), first_visit(_tasks(4)))


def test_shards_hold_together_what_one_process_holds():
  tasks = _tasks(5)
  whole = _batches(tasks, tasks_per_step=4)
  shards = [_batches(tasks, tasks_per_step=4, shard=(rank, 2)) for rank in range(2)]
  for _ in range(6):
    parts = [next(shard)['query']['index'] for shard in shards]
    assert [part.shape[0] for part in parts] == [2, 2]
    expected = next(whole)['query']['index'].tolist()
    assert sorted(np.concatenate(parts).tolist()) == sorted(expected)


@pytest.mark.parametrize('images', [20, 21])
def test_few_images_of_a_task_are_drawn_from_in_the_20_shot_protocol(images):
  tasks = {'t': _task('t', 60, 40)}
  pools = data.task_pools('t', tasks['t'], seed=0, images_per_task=images, groups=range(100))
  kept = pools.support + pools.query
  assert len(set(kept)) == images
  assert tasks['t'].counts(kept) == (images - 10, 10)
  assert tasks['t'].counts(pools.support)[1] == 7
  batches = _batches(tasks, tasks_per_step=1, images_per_task=images)
  seen = set()
  for _ in range(30):
    for batch in next(batches).values():
      seen |= set(batch['index'].ravel().tolist())
      seen |= set(batch['reference'][..., 0, 0, 1].ravel().tolist())
  assert seen == set(kept)


def test_few_images_of_a_task_are_different_ones():
  """Of the pictures of one group only one counts."""
  groups = [i // 5 for i in range(100)]
  pools = data.task_pools('t', _task('t', 60, 40), seed=0, images_per_task=16, groups=groups)
  kept = pools.support + pools.query
  assert len({groups[i] for i in kept}) == len(kept) == 16


def test_pools_are_shares_of_each_class():
  pools = data.task_pools('t', _task('t', 100, 40), seed=0, groups=range(140))
  task = _task('t', 100, 40)
  assert task.counts(pools.support) == (70, 28)
  assert task.counts(pools.query) == (30, 12)
  assert pools.groups == tuple(range(140))
  few = data.task_pools('t', task, seed=0, support_fraction=0.2, groups=range(140))
  assert task.counts(few.support) == (20, 8)
  assert set(few.support) < set(pools.support)


def test_copies_are_found_where_no_groups_are_given():
  textures = [
    np.random.default_rng(i).integers(0, 256, (64, 64, 1)).astype(np.uint8) for i in range(20)
  ]
  textures[9] = textures[3]
  source = dataclasses.replace(_task('t', 10, 10), read=lambda i: textures[i])
  pools = data.task_pools('t', source, seed=0)
  assert pools.groups[9] == pools.groups[3] == 3
  assert len(set(pools.groups)) == 19


def test_broken_image_stops_at_the_start():
  with pytest.raises(ValueError, match=r'image t/07\.png cannot be read'):
    _batches({'t': _task('t', broken=(7,))}, tasks_per_step=1)
  with pytest.raises(ValueError, match=r'image t/07\.png cannot be read'):
    _batches({'t': _task('t', broken=(7,))}, tasks_per_step=1, cache_bytes=0)


@pytest.mark.parametrize(
  ('task', 'settings', 'message'),
  [
    (_task('x', 0, 5), {}, "The task 't' has no good images"),
    (_task('x', 5, 0), {}, "The task 't' has no defect images"),
    (_task('x', 9, 1), {}, r"The task 't' cannot be divided .* leaves none for"),
    (_task('x', 2, 9), {}, "The task 't' has less than 2 different good images to learn from"),
    (_task('x', 9, 4), {'images_per_task': 20}, "The task 't' has 9 different good images, but"),
    (_task('x', 12, 4), {'images_per_task': 20}, "'t' has 4 different defect images, .* needs 10"),
    (
      dataclasses.replace(_task('x'), classes=('ok', 'nok')),
      {},
      "The task 't' must have the classes good and defect, but x has ok, nok",
    ),
  ],
)
def test_a_bad_task_is_named(task, settings, message):
  with pytest.raises(ValueError, match=message):
    _batches({'t': task}, tasks_per_step=1, **settings)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'tasks_per_step': 4}, 'tasks_per_step is 4, but there are 3 tasks'),
    ({'tasks_per_step': 0}, 'positive multiple of 1, got 0'),
    ({'shard': (0, 3)}, 'positive multiple of 3, got 2'),
    ({'shard': (2, 2)}, 'shard must be'),
    ({'support': 1}, 'support must be at least 2, got 1'),
    ({'query': 0}, 'query must be at least 2, got 0'),
    ({'references': 0}, 'references must be at least 1, got 0'),
    ({'seed': -1}, 'seed must be at least 0, got -1'),
    ({'image_size': (8, 0)}, 'image_size must be at least 1, got 0'),
    ({'support_fraction': 1.0}, r'support_fraction must lie in \(0, 1\), got 1\.0'),
    ({'images_per_task': 3}, 'images_per_task must be at least 4, got 3'),
    ({'groups': {'t9': [0]}}, "groups names 't9', which is none of the tasks"),
  ],
)
def test_rejects_bad_arguments(settings, message):
  with pytest.raises(ValueError, match=message):
    _batches(_tasks(), **settings)


def test_synthetic_tasks_make_episodes():
  from jaxdefect.data.sources import synthetic_tasks

  tasks = synthetic_tasks.tasks(
    textures=('woven', 'printed'), marks=('hole',), tones=('dark',),
    num_good=6, num_defect=6, size=64,
  )  # fmt: skip
  batch = next(
    episodes.episode_batches(
      tasks, tasks_per_step=2, support=4, query=2, image_size=(32, 32), seed=0
    )
  )
  assert batch['support']['image'].std(axis=(2, 3)).min() > 0
  assert not (batch['support']['image'] == batch['support']['reference'][:, :, 0]).all()


def test_real_tasks_make_episodes(data_dir):
  tasks = {
    'bc': data.load('bc', dir=data_dir / 'BC'),
    'pcb': data.load('deep_pcb_pairs', dir=data_dir / 'DeepPCB', per_image=1),
  }
  groups = {
    name: np.unique([one or str(i) for i, one in enumerate(source.groups)], return_inverse=True)[1]
    for name, source in tasks.items()
  }
  batches = data.episode_batches(
    tasks, tasks_per_step=2, support=8, query=4, references=2, image_size=(64, 64), seed=0,
    groups=groups, images_per_task=40, cache_bytes=0,
  )  # fmt: skip
  sizes = {name: len(source) for name, source in tasks.items()}
  batch = next(batches)
  for row in range(2):
    index = batch['support']['index'][row]
    if (index < sizes['bc']).all():
      # Only the blue channel has signal.
      assert batch['support']['image'][row][..., 2].std() > 20
    else:
      # A template is its image but for the defect.
      change = np.abs(
        batch['support']['image'][row].astype(int) - batch['support']['reference'][row, :, 0]
      )
      assert np.mean(change > 128) < 0.2
    assert batch['support']['label'][row].sum() == 4
