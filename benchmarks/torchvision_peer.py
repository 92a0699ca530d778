"""The other side of ``benchmarks.deform_conv``: torchvision in an interpreter of its own.

``benchmarks.detector_peer`` shares what is not about deformable convolution.

It is started with any Python that has torch and torchvision, reads one request per line of its
standard input and answers each with one line, so that both sides can take turns:

    {"make": {"shape": [N, H, W, C, O], "version": "v1", "dtype": "float32"}}
        -> {"dtype": ..., "means": ..., "peak_bytes": ...}
    {"run": "forward"}  ->  {"wall": seconds, "cpu": seconds}
"""

import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks import timing

PASSES = ('forward', 'forward+backward')


def arrays(shape: tuple[int, ...], version: str) -> dict[str, np.ndarray]:
  """The same numbers for both sides: a 3x3 kernel, padding 1, offsets of about two pixels."""
  n, height, width, channels, features = shape
  random = np.random.default_rng(0)
  made = {
    'x': random.normal(size=(n, height, width, channels)),
    'offset': 2 * random.normal(size=(n, height, width, 18)),
    'kernel': random.normal(size=(3, 3, channels, features)) / np.sqrt(9 * channels),
    'mask': random.uniform(size=(n, height, width, 9)),
    'cotangent': random.normal(size=(n, height, width, features)),
  }
  if version == 'v1':
    del made['mask']
  return {name: array.astype(np.float32) for name, array in made.items()}


class Peer:
  """Passes of torchvision by name, and the clock that runs them; subclasses ``make`` the passes."""

  def __init__(self, device: str, threads: int, repeats: int):
    import torch

    torch.set_num_threads(threads)
    # The same arithmetic on both sides: XLA's default for float32 on a GPU is TF32.
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    self.torch = torch
    self.device, self.repeats = device, repeats
    self.passes: dict[str, Any] = {}

  def run(self, name: str) -> dict[str, float]:
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(self.repeats):
      self.passes[name]()
    self._wait()
    seconds = {'wall': time.perf_counter() - start, 'cpu': time.process_time() - start_cpu}
    return {key: value / self.repeats for key, value in seconds.items()}

  def _wait(self) -> None:
    if self.device == 'cuda':
      self.torch.cuda.synchronize()

  def peak(self, call: Any) -> int | None:
    """Memory beyond the inputs, results included: the device's, or the growth of this process."""
    if self.device != 'cuda':
      return timing.growth(call)
    call()
    before = self.torch.cuda.memory_allocated()
    self.torch.cuda.reset_peak_memory_stats()
    call()
    return self.torch.cuda.max_memory_allocated() - before


class DeformConv(Peer):
  """torchvision's deformable convolution at one size."""

  def make(self, shape: list[int], version: str, dtype: str) -> dict[str, Any]:
    """Prepares both passes; where torchvision lacks bfloat16, with float16."""
    try:
      return self._make(shape, version, dtype)
    except (RuntimeError, NotImplementedError):
      if dtype != 'bfloat16':
        raise
      return self._make(shape, version, 'float16')

  def _make(self, shape: list[int], version: str, dtype: str) -> dict[str, Any]:
    import torchvision  # pyright: ignore[reportMissingImports]

    torch, operator = self.torch, torchvision.ops.deform_conv2d

    def tensor(array: np.ndarray, order: tuple[int, ...]) -> Any:
      kind = getattr(torch, dtype)
      return torch.from_numpy(array).permute(order).contiguous().to(self.device, kind)

    made = arrays(tuple(shape), version)
    kernel = tensor(made.pop('kernel'), (3, 2, 0, 1)).requires_grad_()
    tensors = {name: tensor(array, (0, 3, 1, 2)) for name, array in made.items()}
    cotangent = tensors.pop('cotangent')
    inputs = [tensors['x'], tensors['offset'], kernel]
    if 'mask' in tensors:
      inputs.append(tensors['mask'])
    for one in inputs:
      one.requires_grad_()

    def apply() -> Any:
      return operator(*inputs[:3], padding=1, mask=inputs[3] if inputs[3:] else None)

    def forward() -> list:
      with torch.no_grad():
        return [apply()]

    def both() -> list:
      y = apply()
      return [y.detach(), *torch.autograd.grad(y, inputs, cotangent)]

    self.passes = dict(zip(PASSES, (forward, both)))
    peaks = {name: self.peak(call) for name, call in self.passes.items()}
    means = [float(one.double().abs().mean()) for one in both()]
    return {'dtype': dtype, 'means': means, 'peak_bytes': peaks}


def serve(kind: Any) -> None:
  """Answers requests with a ``kind`` of ``Peer``, until there are no more."""
  device, threads, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
  peer = kind(device, threads, repeats)
  import torch
  import torchvision  # pyright: ignore[reportMissingImports]

  answer: Any = {'torch': torch.__version__, 'torchvision': torchvision.__version__}
  print(json.dumps(answer), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    if 'make' in request:
      answer = peer.make(**request['make'])
    else:
      answer = peer.run(request['run'])
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  serve(DeformConv)
