"""The other side of ``benchmarks.maml``: the same meta-step by PyTorch's double backward.

Two ways that its documentation shows: ``torch.autograd.grad(..., create_graph=True)`` with one
backward per task, so that only one task's graph is in memory, in either memory format; and
``torch.func`` with ``vmap`` over the tasks, in float32 alone, as its double backward refuses
autocast. ``torch.compile`` does not support double backward.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from jaxdefect.convert.twins import medetection

VARIANTS: dict[str, dict[str, Any]] = {
  'PyTorch': {},
  'PyTorch channels_last': {'channels_last': True},
  'PyTorch torch.func': {'vmapped': True},
}


class Network(nn.Module):
  """4Conv with batch statistics and one logit."""

  def __init__(self, width: int, features: int):
    super().__init__()
    self.body = medetection.Conv4(
      3, width, 4, None, 32, lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)
    )
    self.fc = nn.Linear(features, 1)

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N]."""
    return self.fc(self.body(x).flatten(1))[:, 0]


def _numpy(gradient: Tensor | None) -> np.ndarray:
  assert gradient is not None
  return gradient.cpu().numpy()


def meta_step(
  weights: dict[str, np.ndarray],
  support: dict[str, np.ndarray],
  query: dict[str, np.ndarray],
  *,
  steps: int,
  inner_rate: float,
  outer_rate: float,
  device: str = 'cpu',
  channels_last: bool = False,
  vmapped: bool = False,
  half: bool = False,
) -> Callable[[], tuple[float, dict[str, np.ndarray]]]:
  """Prepares a meta-step: inner loops, query losses, their second-order gradient, Adam.

  Args:
    weights: a state dict of numpy arrays.
    support: ``'x'`` [T, S, H, W, 3] and ``'y'`` [T, S].
    query: ``'x'`` [T, Q, H, W, 3] and ``'y'`` [T, Q].
    steps: of the inner loop.
    inner_rate: its rate.
    outer_rate: Adam's.
    device: 'cpu' or 'cuda'.
    channels_last: memory format of network and images.
    vmapped: all tasks at once by ``torch.func``, instead of one after the other.
    half: autocast to bfloat16.

  Returns:
    A call that makes a step, waits for it and returns a function of no arguments that reads the
    mean query loss and the gradients under their names (so that reading them is not timed).
  """
  layout = torch.channels_last if channels_last else torch.contiguous_format
  fc = weights['fc.weight'].shape[1]
  module = Network(weights['body.conv.0.weight'].shape[0], fc)
  module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
  module = module.to(device).train()
  module = module.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
  params = dict(module.named_parameters())
  optimizer = torch.optim.Adam(module.parameters(), lr=outer_rate, betas=(0.5, 0.999))

  def tensors(part: dict[str, np.ndarray]) -> tuple[list[Tensor], list[Tensor]]:
    x = torch.from_numpy(part['x']).permute(0, 1, 4, 2, 3).to(device)
    y = torch.from_numpy(part['y']).to(device)
    return [task.contiguous(memory_format=layout) for task in x], list(y)

  tasks = (*tensors(support), *tensors(query))
  stacked = tuple(map(torch.stack, tasks)) if vmapped else ()
  count = len(tasks[0])

  def loss(params: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
      logit = functional_call(module, params, (x,))
    return functional.binary_cross_entropy_with_logits(logit.float(), y)

  def descend(params: Any, x: Tensor, y: Tensor) -> Any:
    for _ in range(steps):
      if vmapped:
        gradients = grad(loss)(params, x, y)
      else:
        found = torch.autograd.grad(loss(params, x, y), list(params.values()), create_graph=True)
        gradients = dict(zip(params, found, strict=True))
      params = {name: p - inner_rate * gradients[name] for name, p in params.items()}
    return params

  def one_by_one() -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
      value = loss(descend(params, support_x, support_y), query_x, query_y) / count
      value.backward()
      total += value.detach()
    return total

  def at_once() -> Tensor:
    def objective(params: Any) -> tuple[Tensor, Tensor]:
      def task(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        return loss(descend(params, support_x, support_y), query_x, query_y)

      value = vmap(task)(*stacked).mean()
      return value, value

    # Detached, or the outer autograd would record everything once more.
    fixed = {name: p.detach() for name, p in params.items()}
    gradients, value = grad(objective, has_aux=True)(fixed)
    for name, p in params.items():
      p.grad = gradients[name]
    return value

  def call() -> Any:
    value = at_once() if vmapped else one_by_one()
    optimizer.step()
    if device == 'cuda':
      torch.cuda.synchronize()
    return lambda: (float(value), {n: _numpy(p.grad) for n, p in params.items()})

  return call
