"""docs/performance.md says what the files of benchmarks/results/ say, and nothing else."""

import json
import pathlib
from typing import Any

import pytest
from absl import flags

from launch import (
  parameters_page,
  performance_figures,
  performance_page,
  reproduce,
  scaling_on_paper,
)

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / 'benchmarks' / 'results'
GPU_NETWORK, TPU_NETWORK = scaling_on_paper.NETWORKS


def case(seconds: dict[str, float], **facts: Any) -> dict[str, Any]:
  """A case as the benchmarks write it; the first contender is ours."""
  keys = ('median', 'quartile_1', 'quartile_3')
  first = next(iter(seconds.values()))
  over = {name: {'median': first / value} for name, value in list(seconds.items())[1:]}
  times = {name: dict.fromkeys(keys, value) for name, value in seconds.items()}
  return {'seconds': times, 'ours_over': over, **facts}


def write(folder: pathlib.Path, name: str, device: str, cases: dict, **facts: Any) -> None:
  versions = {'jax': '0.0.1', 'torch': '0.0.2', 'onnxruntime': None}
  report = {'benchmark': name, 'device': device, 'date': '2000-01-02', 'python': '3.0'}
  report |= {'versions': versions, 'environment': {}, 'load_average': 0.25, 'threads': 2}
  path = folder / f'{name}-{device}.json'.lower().replace(' ', '-')
  path.write_text(json.dumps({**report, **facts, 'cases': cases}))


def sent(size: int, rounds: int, gathered: int = 0) -> dict[str, Any]:
  """A counted step."""
  return {
    'config': 'a_config',
    'parameters': size // 4,
    'rounds': rounds,
    'all_reduce': {'optim/gradient.py': size},
    'all_gather': {'losses/contrastive.py': gathered} if gathered else {},
    'reduce_scatter': {},
  }


@pytest.fixture
def results(tmp_path):
  """A CPU's results, a scaling result and counted collectives; no GPU."""
  folder = tmp_path / 'benchmarks' / 'results'
  folder.mkdir(parents=True)
  step = case({'jaxdefect': 1.5, 'PyTorch': 2.0, 'PyTorch channels_last': 1.0})
  shape = {'name': 'resnet50', 'batch': 8, 'side': 224}
  write(folder, 'cpu', 'Old CPU', {'train_step': step}, shape=shape)
  score = {
    name: case(
      {'jaxdefect': ours, 'plain PyTorch': 0.1, 'anomalib': 0.3, 'matrix product alone': 1e-3},
      peak_bytes={'jaxdefect': {'peak_bytes': 10**7}, 'plain PyTorch': 4 * 10**7, 'anomalib': None},
    )
    for name, ours in (('score 1', 0.01), ('score 8', 0.06), ('coreset', 9.0))
  }
  write(folder, 'patchcore', 'Old CPU', score, peer_versions={'torch': '0.0.3'})
  sizes = {
    f'batch {n}': case(
      {'jaxdefect': 0.1 * n, 'PyTorch': 0.2 * n},
      axis='batch', value=n, peak_bytes={'jaxdefect': 10**6 * n**2},
    )
    for n in (1, 2, 4)
  }  # fmt: skip
  write(folder, 'scaling', 'Old CPU', sizes)
  counted = {
    'methods': {'classifier': sent(8 * 10**6, 2, gathered=10**5)},
    'benchmarks': {'resnet50': sent(10**8, 99)},
  }
  (folder / 'collectives.json').write_text(
    json.dumps({'benchmark': 'collectives', 'cases': counted})
  )
  return folder


def row(text: str, *words: str) -> str:
  """The first line of the page with all of the words."""
  return next(line for line in text.splitlines() if all(word in line for word in words))


def test_committed_page_is_generated():
  assert (ROOT / 'docs' / 'performance.md').read_text() == performance_page.render(RESULTS)


def test_summary_takes_the_worst_case_against_the_best_peer(results):
  text = performance_page.render(results)
  found = row(text, 'ResNet-50, training step', 'Old CPU')
  assert 'PyTorch channels_last: 1.00 s | 1.50 | at most 1.2 | **no** |' in found
  found = row(text, 'PatchCore, scoring |', 'Old CPU')
  # Neither the product alone, nor the coreset, nor the easier of the two cases.
  assert 'score 8 (of 2) | 60.0 ms | plain PyTorch: 100 ms | 0.60 | at most 0.7 | yes |' in found
  found = row(text, 'PatchCore, scoring, peak memory', 'Old CPU')
  assert '10 MB | plain PyTorch: 40 MB | 0.25 | at most 1 | yes |' in found


def test_what_is_missing_is_said_with_its_command(results):
  text = performance_page.render(results)
  assert 'not measured: `python -m benchmarks.gpu`' in row(text, 'ResNet-50', 'a GPU')
  assert 'not measured: `python -m benchmarks.maml' in row(text, 'MAML, meta-step', 'a CPU')
  section = text.partition('## A recogniser on a GPU')[2].partition('\n## ')[0]
  assert 'Not measured.' in section
  (results / 'collectives.json').unlink()
  assert 'Not counted yet: `python -m benchmarks.collectives`' in performance_page.render(results)


def test_every_file_is_shown_with_its_conditions(results):
  write(results, 'new-thing', 'Old CPU', {'all of it': case({'jaxdefect': 2.5e-5, 'peer': 1e-4})})
  kernels = {
    'a kernel': {'error': 'ValueError: no | tiles', 'took_seconds': 1.0},
    'another': {'seconds': {}, 'errors': {'Pallas': 'differs'}, 'peak_bytes': {'XLA': 5 * 10**6}},
  }
  write(results, 'kernels', 'A GPU', kernels, threads=None, peer_versions=None)
  text = performance_page.render(results)
  assert '## new-thing' in text
  assert '| all of it | jaxdefect | 25.0 µs |' in text
  assert '|  | peer | 100 µs | 100 µs to 100 µs | 0.25 |' in text
  assert '| a kernel |  | ValueError: no / tiles |' in text
  assert '|  | Pallas | differs |' in text
  assert '**Old CPU**, 2000-01-02, 2 threads: Python 3.0, jax 0.0.1, torch 0.0.3;' in text
  assert '| batch | 1, 4 | batch^1.00 | batch^2.00 | 0.50 |' in text


def test_gpu_results_take_the_place_of_the_cpu_s_step(results):
  assert [one.report['device'] for one in steps(results)] == ['Old CPU']
  assert 'steps are those of a CPU' in performance_page.render(results)
  titles = ('resnet50 train_step float32', 'resnet50 inference float32')
  cases = {title: case({'jaxdefect': 0.2, 'PyTorch': 0.25}) for title in titles}
  write(results, 'gpu', 'New GPU', cases, batch=128, side=224, steps_per_call=5, threads=None)
  (found,) = steps(results)
  assert found.title == 'resnet50, batch 128 of 224 px, float32'
  assert found.seconds == pytest.approx(0.04)  # five steps are one call
  text = performance_page.render(results)
  assert 'steps are those of a CPU' not in text
  assert '| resnet50 train_step float32 | 40.0 ms | PyTorch: 50.0 ms | 0.80 |' in text
  # An interrupted run has its sizes elsewhere.
  shape = {'name': 'resnet50', 'batch': 128, 'side': 224, 'repeats': 5}
  write(results, 'gpu', 'New GPU', cases, shape=shape)
  assert steps(results)[0][:3] == found[:3]


def steps(results: pathlib.Path) -> list[scaling_on_paper.Step]:
  return scaling_on_paper.steps(performance_page.read(results)[0])


def test_network_without_counted_bytes_is_refused(results):
  shape = {'name': 'resnet34', 'batch': 8, 'side': 224}
  write(results, 'cpu-resnet34', 'Old CPU', {'train_step': case({'jaxdefect': 1.0})}, shape=shape)
  with pytest.raises(ValueError, match="no network 'resnet34'"):
    performance_page.render(results)


def test_communication_by_hand():
  # 8 GPUs of a server: start 6.8 µs, up and down 7 hops of 0.6 µs; 256: 1.8 times as slow, and 5
  # hops between 32 servers of 5 µs.
  assert GPU_NETWORK.latency(8) == pytest.approx(6.8e-6 + 2 * 7 * 0.6e-6)
  assert GPU_NETWORK.latency(256) == pytest.approx(6.8e-6 + 2 * (7 * 0.6e-6 * 1.8 + 5 * 5e-6))
  # 2 x 4 and 16 x 16 chips, 1 µs a hop, there and back.
  assert TPU_NETWORK.latency(8) == pytest.approx(2 * (1 + 3) * 1e-6)
  assert TPU_NETWORK.latency(256) == pytest.approx(2 * (15 + 15) * 1e-6)
  step = sent(450 * 10**6, 10, gathered=9 * 10**6)
  expected = 10 * GPU_NETWORK.latency(8) + (2 * 7 / 8 * 450e6 + 7 * 9e6) / 450e9
  assert scaling_on_paper.communication_time(step, 8, GPU_NETWORK) == pytest.approx(expected)
  assert scaling_on_paper.communication_time(step, 1, GPU_NETWORK) == 0.0
  assert scaling_on_paper.efficiency(0.9, 0.1) == pytest.approx(0.9)


def test_page_shows_the_predicted_efficiency(results):
  found = row(performance_page.render(results), 'resnet50, batch 8 of 224 px')
  for network in scaling_on_paper.NETWORKS:
    for chips in (8, 256):
      bandwidth = {8: 450e9, 256: 50e9}[chips] if network is GPU_NETWORK else 90e9
      waiting = 99 * network.latency(chips) + 2 * (chips - 1) / chips * 1e8 / bandwidth
      assert f'{100 * 1.5 / (1.5 + waiting):.1f} %' in found


def test_enough_keeps_nine_tenths(results):
  found = row(performance_page.render(results), '`classifier`')
  step = sent(8 * 10**6, 2, gathered=10**5)
  waiting = scaling_on_paper.communication_time(step, 256, GPU_NETWORK)
  assert f'/ {1e3 * waiting:.2f}; {9e3 * waiting:.0f} |' in found
  assert scaling_on_paper.efficiency(9 * waiting, waiting) == pytest.approx(0.9)


def test_exponent_by_hand():
  assert performance_figures.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
  assert performance_figures.exponent([5], [7]) == 0


def test_check_finds_an_edited_page(results, monkeypatch):
  monkeypatch.setattr(parameters_page, 'render', lambda: 'counted elsewhere\n')
  docs = results.parent.parent / 'docs'
  docs.mkdir()
  values = flags.FlagValues()
  reproduce.define(values)

  def run(mode: str) -> None:
    values(['reproduce', f'--docs={docs}', mode])
    reproduce.main(values)
    values.unparse_flags()

  run('--render')
  page = docs / 'performance.md'
  for name in ('time-old-cpu.png', 'memory-old-cpu.png', 'efficiency.png'):
    assert f'(performance/{name})' in page.read_text()
    assert (docs / 'performance' / name).read_bytes().startswith(b'\x89PNG')
  values['render'].value = False
  run('--check')
  page.write_text(page.read_text().replace('1.50', '1.05'))
  with pytest.raises(ValueError, match=r'performance\.md is not what the code'):
    run('--check')
