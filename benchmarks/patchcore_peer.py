"""The other side of ``benchmarks.patchcore``: PatchCore in PyTorch, in its own interpreter.

Two peers: anomalib's own classes where it is installed, and an equal plain PyTorch one (the greedy
loop in the dimensions of our projection; ``cdist``, a minimum, the re-weighting, and a separable
Gaussian). Requests and answers go as in ``benchmarks.torchvision_peer``:

    {"make": {"arrays": PATH.npz, "num": 5000, "dim": 128}}  ->  {"peers": [...], "dims": {...}}
    {"run": "plain PyTorch fit"}   ->  {"wall": seconds, "cpu": seconds}
    {"answer": "plain PyTorch fit"}  ->  {"values": [...]}, indices or scores
    {"large": 1000000}             ->  {"plain PyTorch": {"peak_bytes": ...}, ...}
"""

import importlib.metadata
import importlib.util
import json
import sys
from typing import Any

import numpy as np

from benchmarks.torchvision_peer import Peer

PLAIN, ANOMALIB = 'plain PyTorch', 'anomalib'
PLACES = 28  # patches along a side of an image of 224 pixels
SIDE = 224
NEIGHBOURS = 9
SIGMA = 4.0


def clustered(size: int, *, features: int = 384, seed: int = 0) -> np.ndarray:
  """Vectors as patch features are: some hundred kinds, non-negative, [size, features] float32.

  Args:
    size: how many.
    features: D.
    seed: of the vectors; the kinds are the same for all.

  Returns:
    The vectors, made in blocks, so that a million need no second million.
  """
  kinds = np.abs(np.random.default_rng(99).normal(size=(300, features))).astype(np.float32)
  random = np.random.default_rng(seed)
  made = np.empty((size, features), np.float32)
  for start in range(0, size, 50_000):
    block = made[start : start + 50_000]
    random.standard_normal(out=block, dtype=np.float32)
    block *= 0.3
    block += kinds[random.integers(0, len(kinds), len(block))]
    np.maximum(block, 0, out=block)
  return made


class PatchCore(Peer):
  """Coreset and scoring, by plain PyTorch and by anomalib."""

  def __init__(self, device: str, threads: int, repeats: int):
    super().__init__(device, threads, repeats)
    # Full precision, as both frameworks have it by default and ours asks for.
    self.torch.backends.cuda.matmul.allow_tf32 = False
    self.torch.backends.cudnn.allow_tf32 = False

  def make(self, arrays: str, num: int, dim: int) -> dict[str, Any]:
    """Prepares coreset and scoring of 1 and 8 images of both peers."""
    with np.load(arrays) as read:
      self.tensors = {name: self.torch.from_numpy(read[name]).to(self.device) for name in read}
    features, bank, queries = (self.tensors[k] for k in ('features', 'bank', 'queries'))
    batches = {n: queries[: n * PLACES**2] for n in (1, 8)}
    self.passes = {f'{PLAIN} fit': lambda: self._choose(features, num, dim)}
    self.passes |= {
      f'{PLAIN} score {n}': lambda q=q, n=n: self._score(q, bank, n) for n, q in batches.items()
    }
    # What no exact search in float32 can go below.
    self.passes |= {f'product {n}': lambda q=q: q @ bank.T for n, q in batches.items()}
    peers, dims = [PLAIN], {PLAIN: dim}
    if importlib.util.find_spec('anomalib'):
      peers.append(ANOMALIB)
      dims[ANOMALIB] = self._anomalib(features, bank, batches, num)
    scoring = [name for name in self.passes if 'score' in name]
    return {
      'peers': peers,
      'dims': dims,
      'peak_bytes': {name: self.peak(self.passes[name]) for name in scoring},
    }

  def answer(self, name: str) -> list:
    return np.asarray(self.torch.as_tensor(self.passes[name]()).cpu()).ravel().tolist()

  def large(self, size: int) -> dict[str, Any]:
    """Peak memory of scoring one image against a large bank, and prepares its passes."""
    torch = self.torch
    bank = torch.from_numpy(clustered(size, seed=1)).to(self.device)
    queries = self.tensors['queries'][: PLACES**2]
    self.passes[f'{PLAIN} large'] = lambda: self._score(queries, bank, 1)
    if f'{ANOMALIB} fit' in self.passes:
      model = self._model(bank)
      self.passes[f'{ANOMALIB} large'] = lambda: self._score_with(model, queries, 1)
    return {
      peer: {'peak_bytes': self.peak(self.passes[f'{peer} large'])}
      for peer in (PLAIN, ANOMALIB)
      if f'{peer} large' in self.passes
    }

  def _choose(self, features: Any, num: int, dim: int) -> Any:
    """The greedy loop; one pass over the projected vectors per choice, nothing allocated in it.

    With a new difference in each turn, the heap of glibc falls to pieces, up to 24 GB.
    """
    torch = self.torch
    projected = features @ (torch.randn(features.shape[1], dim, device=self.device) / dim**0.5)
    chosen = torch.empty(num, dtype=torch.long, device=self.device)
    chosen[0] = torch.randint(len(features), (), device=self.device)
    left = torch.full((len(features),), torch.inf, device=self.device)
    apart, distances = torch.empty_like(projected), torch.empty_like(left)
    for turn in range(1, num):
      torch.sub(projected, projected[chosen[turn - 1]], out=apart)
      torch.linalg.norm(apart, dim=1, out=distances)
      torch.minimum(left, distances, out=left)
      torch.argmax(left, out=chosen[turn])
    return chosen

  def _score(self, queries: Any, bank: Any, num: int) -> Any:
    torch, functional = self.torch, self.torch.nn.functional
    with torch.inference_mode():
      distances, nearest = torch.cdist(queries, bank).min(1)
      distances, nearest = distances.reshape(num, -1), nearest.reshape(num, -1)
      scores, worst = distances.max(1)
      rows = torch.arange(num, device=self.device)
      patch = queries.reshape(num, -1, queries.shape[1])[rows, worst]
      around = torch.cdist(bank[nearest[rows, worst]], bank).topk(NEIGHBOURS, largest=False)[1]
      apart = torch.linalg.norm(patch[:, None] - bank[around], dim=2)
      scores = scores * (1 - apart.softmax(1)[:, 0])
      maps = distances.reshape(num, 1, PLACES, PLACES)
      maps = functional.interpolate(maps, (SIDE, SIDE), mode='bilinear')
      reach = int(4 * SIGMA + 0.5)
      offset = torch.arange(-reach, reach + 1, device=self.device)
      weight = torch.exp(-0.5 * (offset / SIGMA) ** 2)
      weight = (weight / weight.sum())[None, None]
      maps = functional.pad(maps, (reach,) * 4, mode='reflect')
      maps = functional.conv2d(functional.conv2d(maps, weight[:, :, None]), weight[..., None])
      return scores

  def _anomalib(self, features: Any, bank: Any, batches: dict[int, Any], num: int) -> int:
    """Prepares anomalib's passes; returns the dimensions that it projects to."""
    from anomalib.models.components import KCenterGreedy  # pyright: ignore[reportMissingImports]

    model = self._model(bank)

    def fit() -> Any:
      return KCenterGreedy(features, num / len(features)).select_coreset_idxs()

    self.passes[f'{ANOMALIB} fit'] = fit
    self.passes |= {
      f'{ANOMALIB} score {n}': lambda q=q, n=n: self._score_with(model, q, n)
      for n, q in batches.items()
    }
    sampler = KCenterGreedy(features, num / len(features))
    sampler.model.fit(features)
    return int(sampler.model.n_components)

  def _model(self, bank: Any) -> Any:
    from anomalib.models.image.patchcore.torch_model import (  # pyright: ignore
      PatchcoreModel,
    )

    model = PatchcoreModel(['layer2', 'layer3'], 'resnet18', pre_trained=False)
    model = model.to(self.device).eval()
    model.memory_bank = bank
    return model

  def _score_with(self, model: Any, queries: Any, num: int) -> Any:
    """What anomalib's ``PatchcoreModel.forward`` does after its features."""
    with self.torch.inference_mode():
      distances, nearest = model.nearest_neighbors(embedding=queries, n_neighbors=1)
      distances, nearest = distances.reshape(num, -1), nearest.reshape(num, -1)
      scores = model.compute_anomaly_score(distances, nearest, queries)
      model.anomaly_map_generator(distances.reshape(num, 1, PLACES, PLACES), (SIDE, SIDE))
      return scores


def main() -> None:
  peer = PatchCore(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
  known = {
    found.metadata['Name'].lower(): found.version for found in importlib.metadata.distributions()
  }
  versions = {name: known[name] for name in ('torch', 'torchvision', 'anomalib') if name in known}
  print(json.dumps(versions), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    if 'make' in request:
      answer: Any = peer.make(**request['make'])
    elif 'large' in request:
      answer = peer.large(request['large'])
    elif 'answer' in request:
      answer = {'values': peer.answer(request['answer'])}
    else:
      answer = peer.run(request['run'])
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  # anomalib draws a progress bar on standard error; standard output is for answers alone.
  main()
