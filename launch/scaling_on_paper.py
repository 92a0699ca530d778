r"""How training would scale over many chips, predicted from what one step takes and sends.

Each chip keeps the batch of the measured step. With n chips

.. math::
  t_c(n) = r\,\ell(n) + \frac{2 (n - 1)}{n} \frac{S}{B(n)} + (n - 1) \frac{G}{B(n)}, \qquad
  E(n) = \frac{t}{t + t_c(n)}

where t is the step on one chip, S the bytes that are summed over all chips (a ring sends each part
twice), G the bytes of one chip that go to all others, or come from them, r the rounds that wait for
one another, :math:`\ell` the latency of a small all-reduce and B the bytes that a chip sends per
second. Nothing is sent while something is computed, which makes E a lower bound.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

CHIPS = (8, 256)
GOOD = 0.9  # an efficiency that most would be content with
# File that asks for a collective -> what it is.
PARTS = {
  'optim/gradient.py': 'gradients',
  'methods/ganomaly.py': 'gradients',  # of two optimisers
  'models/normalization.py': 'batch statistics',
}


class Network(NamedTuple):
  """How chips are connected.

  Attributes:
    name: of chips and links.
    bandwidth: chips -> bytes per second that each sends (as many come in at the same time).
    latency: chips -> seconds of an all-reduce of a few bytes.
    sources: Markdown, where the figures come from.
  """

  name: str
  bandwidth: Callable[[int], float]
  latency: Callable[[int], float]
  sources: str


# Chips of one server, 18 links of 25 GB/s each way and chip; between servers 400 Gb/s per chip.
SERVER, NVLINK, INFINIBAND = 8, 450e9, 50e9
# NCCL's estimate for trees with its protocol for small messages: start, NVLink hop (1.8 times as
# slow where there are several servers), hop between servers.
NCCL_START, NVLINK_HOP, SEVERAL_SERVERS, INFINIBAND_HOP = 6.8e-6, 0.6e-6, 1.8, 5e-6
# A ring in both directions over one axis; four links of a chip would send twice as much.
ICI, ICI_HOP = 9e10, 1e-6


def _tree_latency(chips: int) -> float:
  inside, servers = min(chips, SERVER), math.ceil(chips / SERVER)
  hop = NVLINK_HOP * (SEVERAL_SERVERS if servers > 1 else 1)
  return NCCL_START + 2 * ((inside - 1) * hop + math.ceil(math.log2(servers)) * INFINIBAND_HOP)


def _torus_latency(chips: int) -> float:
  """There and back along both sides of the squarest rectangle."""
  side = max(d for d in range(1, math.isqrt(chips) + 1) if chips % d == 0)
  return 2 * (side - 1 + chips // side - 1) * ICI_HOP


NETWORKS = (
  Network(
    'H100 or H200: NVLink 4 within a server of 8, InfiniBand NDR between servers',
    lambda chips: NVLINK if chips <= SERVER else INFINIBAND,
    _tree_latency,
    'NVLink 4: 900 GB/s per GPU, both directions together '
    '([NVIDIA H200](https://www.nvidia.com/en-us/data-center/h200/)); ConnectX-7: 400 Gb/s per GPU '
    '([DGX H200](https://docs.nvidia.com/dgx/dgxh100-user-guide/)); latencies: '
    "NCCL's own model, `baseLat` and `hwLat` of "
    '[tuning.cc](https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc) (tree, LL)',
  ),
  Network(
    'TPU v5e: inter-chip interconnect, a torus of up to 16 x 16',
    lambda chips: ICI,
    _torus_latency,
    '1,600 Gb/s per chip over four links '
    '([TPU v5e](https://cloud.google.com/tpu/docs/v5e)), of which a ring uses two: 90 GB/s, and '
    '1 µs per hop ([How to Scale Your Model](https://jax-ml.github.io/scaling-book/tpus/))',
  ),
)


def communication_time(sent: dict[str, Any], chips: int, network: Network) -> float:
  """t_c: seconds per step that chips wait for one another.

  Args:
    sent: a case of ``benchmarks/results/collectives.json``.
    chips: n.
    network: that connects them.

  Returns:
    Seconds; 0 for one chip.
  """
  if chips == 1:
    return 0.0
  summed = sum(sent['all_reduce'].values())
  shards = sum(sent['all_gather'].values()) + sum(sent['reduce_scatter'].values())
  moved = 2 * (chips - 1) / chips * summed + (chips - 1) * shards
  return sent['rounds'] * network.latency(chips) + moved / network.bandwidth(chips)


def efficiency(step: float, communication: float) -> float:
  """E: share of the time in which a chip computes."""
  return step / (step + communication)


class Step(NamedTuple):
  """A measured training step of a network whose collectives were counted."""

  title: str
  network: str  # a key of the counted benchmarks
  seconds: float
  report: dict[str, Any]


def steps(reports: Iterable[dict[str, Any]]) -> list[Step]:
  """The measured training steps: those of accelerators, where there are any, and of CPUs else."""
  found = []
  for report in reports:
    kind = report['benchmark'].partition('-')[0]
    for title, case in report['cases'].items():
      if kind == 'cpu' and title == 'train_step':
        shape = report['shape']
        title = f'{shape["name"]}, batch {shape["batch"]} of {shape["side"]} px'
        found.append(Step(title, shape['name'], _median(case), report))
      elif kind == 'gpu' and (match := re.match(r'(\S+) train_step (\S+)', title)):
        size = report.get('shape', report)
        title = f'{match[1]}, batch {size["batch"]} of {size["side"]} px, {match[2]}'
        per_call = report.get('steps_per_call') or report['shape']['repeats']
        found.append(Step(title, match[1], _median(case) / per_call, report))
      elif kind == 'detector' and title.startswith('train step'):
        for ours in ('jaxdefect', 'jaxdefect, whole method'):
          name = title.replace('train step', 'detector' + ours.removeprefix('jaxdefect'))
          seconds = case['seconds'][ours]['median']
          found.append(Step(name, f'detector: {ours}', seconds, report))
  fast = [one for one in found if on_accelerator(one.report)]
  return fast or found


def _median(case: dict[str, Any]) -> float:
  return case['seconds']['jaxdefect']['median']


def on_accelerator(report: dict[str, Any]) -> bool:
  """Whether a result is an accelerator's; a CPU's says how many threads it had."""
  kind = report['benchmark'].partition('-')[0]
  return kind == 'gpu' or (kind not in ('serve', 'review') and report.get('threads') is None)


def lines(counted: dict[str, Any] | None, reports: list[dict[str, Any]]) -> list[str]:
  """The section of the page, without its heading and figure.

  Args:
    counted: ``collectives.json``; None where it has not been written.
    reports: all other results.

  Returns:
    Lines of Markdown.
  """
  text = [
    'No cluster was at hand, so this is arithmetic: a step measured on one device, the bytes that '
    'it sends (counted in the traced step by `python -m benchmarks.collectives`; nothing is run) '
    'and the speed of links as their makers state it. Every chip keeps the batch of the measured '
    'step, so n chips take n batches at once.',
    '',
    '```',
    't_comm(n) = rounds latency(n) + (2 (n - 1) / n summed + (n - 1) gathered) / bandwidth(n)',
    'efficiency(n) = t_step / (t_step + t_comm(n))',
    '```',
    '',
    '*Summed* are the bytes that an all-reduce adds up over all chips, along a ring; *gathered* '
    'those of one chip that go to all others, or come from them; *rounds* how often the chips wait '
    'for one another in a step (collectives that do not wait for each other travel together, as '
    'XLA joins them); *latency* that of a small all-reduce, over a tree between GPUs, along both '
    'sides of the torus between TPUs. Nothing is sent while something is computed, although the '
    'gradients of the last layers could be: the efficiency is a lower bound. What grows with n on '
    'the chip itself, such as the comparison with all gathered embeddings, is not in it.',
    '',
    f'| network | {" | ".join(f"{n} chips" for n in CHIPS)} | sources |',
    '|---|' + '---|' * (len(CHIPS) + 1),
  ]
  for network in NETWORKS:
    cells = [
      f'{network.bandwidth(n) / 1e9:.0f} GB/s, {1e6 * network.latency(n):.0f} µs' for n in CHIPS
    ]
    text.append(f'| {network.name} | {" | ".join(cells)} | {network.sources} |')
  if counted is None:
    return [*text, '', 'Not counted yet: `python -m benchmarks.collectives`.']
  cases = counted['cases']
  return [
    *text,
    '',
    *_methods(cases['methods']),
    '',
    *_efficiencies(cases['benchmarks'], steps(reports)),
  ]


def _methods(cases: dict[str, Any]) -> list[str]:
  text = [
    'Methods with their usual configs; `patchcore`, `padim` and `spade` take no steps. Parameters '
    'and gradients are float32 whatever the network computes in. *Enough* is the shortest step on '
    f'one chip that keeps {100 * GOOD:.0f} % on {CHIPS[-1]} chips: with a longer one, of a larger '
    'batch say, the chips wait less. Methods of few bytes and many rounds wait for the latency: '
    'batch statistics span the devices, so that 1 x 32 and 8 x 4 train alike.',
    '',
    '| method | config | parameters, M | gradients, MB | batch statistics, MB | other sums, MB '
    '| gathered, MB | rounds | '
    + ' | '.join(f'{_short(network)}: 8 / 256 chips, ms; enough, ms' for network in NETWORKS)
    + ' |',
    '|---|---|---|---|---|---|---|---|' + '---|' * len(NETWORKS),
  ]
  for name, sent in cases.items():
    cells = [f'`{name}`', f'`{sent["config"]}`', f'{sent["parameters"] / 1e6:.2f}', *_bytes(sent)]
    for network in NETWORKS:
      times = [1e3 * communication_time(sent, n, network) for n in CHIPS]
      enough = times[-1] * GOOD / (1 - GOOD)
      cells.append(f'{" / ".join(f"{t:.2f}" for t in times)}; {enough:.0f}')
    text.append(f'| {" | ".join(cells)} |')
  return text


def _efficiencies(cases: dict[str, Any], measured: list[Step]) -> list[str]:
  if not measured:
    return ['No training step has been measured: `python -m benchmarks.cpu` or `benchmarks.gpu`.']
  text = [
    'Predicted efficiency of the training steps that were measured, if a step took as long on each '
    'of the chips:',
    '',
    '| step | measured on | ms | summed, MB | rounds | '
    + ' | '.join(f'{_short(network)}, {n} chips' for network in NETWORKS for n in CHIPS)
    + ' |',
    '|---|---|---|---|---|' + '---|' * (len(NETWORKS) * len(CHIPS)),
  ]
  for one in measured:
    sent = cases.get(one.network)
    if sent is None:
      raise ValueError(
        f'collectives.json has no network {one.network!r}; run python -m benchmarks.collectives'
      )
    cells = [
      f'{100 * efficiency(one.seconds, communication_time(sent, n, network)):.1f} %'
      for network in NETWORKS
      for n in CHIPS
    ]
    summed = sum(sent['all_reduce'].values()) / 1e6
    text.append(
      f'| {one.title} | {one.report["device"]} | {1e3 * one.seconds:.0f} | {summed:.1f} '
      f'| {sent["rounds"]} | {" | ".join(cells)} |'
    )
  if not any(on_accelerator(one.report) for one in measured):
    text += [
      '',
      '**These steps are those of a CPU**, many times slower than the chips that such links '
      'connect, so the efficiencies look far too good. As soon as `python -m benchmarks.gpu` has '
      "written its results, theirs take the place of these; until then the figure's curves for "
      'short steps say more.',
    ]
  return text


def _bytes(sent: dict[str, Any]) -> list[str]:
  """Gradients, batch statistics, other sums, what is gathered, in MB; and the rounds."""
  sums = {'gradients': 0, 'batch statistics': 0, 'other': 0}
  for place, size in sent['all_reduce'].items():
    sums[PARTS.get(place, 'other')] += size
  gathered = sum(sent['all_gather'].values()) + sum(sent['reduce_scatter'].values())
  cells = [f'{size / 1e6:.3g}' for size in (*sums.values(), gathered)]
  return [*cells, str(sent['rounds'])]


def _short(network: Network) -> str:
  return network.name.partition(':')[0]
