"""The other side: the same network in PyTorch, tuned as its documentation says."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.ours import CLASSES, images
from jaxdefect.convert import twins


def network(name: str) -> nn.Module:
  """A torchvision-shaped network with a classifier."""
  if name == 'mobilenet_v2':
    return twins.MobileNetV2(num_classes=CLASSES)
  return twins.ResNet(int(name.removeprefix('resnet')), num_classes=CLASSES)


def train_step(
  name: str,
  *,
  batch: int,
  side: int,
  device: str = 'cpu',
  channels_last: bool = False,
  half: bool = False,
  compiled: bool = False,
  repeats: int = 1,
) -> Callable[[], object]:
  """Forward with batch statistics, backward and an SGD update with momentum.

  Args:
    name: of the network.
    batch: images per step.
    side: of the images, in pixels.
    device: 'cpu' or 'cuda'.
    channels_last: memory format of network and images.
    half: autocast to bfloat16.
    compiled: ``torch.compile``.
    repeats: steps per call.

  Returns:
    A call that runs ``repeats`` steps and waits for the last.
  """
  module, x = _prepare(name, batch, side, device, channels_last)
  label = torch.arange(batch, device=device) % CLASSES
  optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
  forward = torch.compile(module) if compiled else module

  def call() -> object:
    for _ in range(repeats):
      optimizer.zero_grad(set_to_none=True)
      with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
        loss = functional.cross_entropy(forward(x), label)
      loss.backward()
      optimizer.step()
    return _wait(device)

  return call


def inference(
  name: str,
  *,
  batch: int,
  side: int,
  device: str = 'cpu',
  channels_last: bool = False,
  half: bool = False,
  compiled: bool = False,
  repeats: int = 1,
) -> Callable[[], object]:
  """Logits of a batch with running statistics; arguments as of ``train_step``."""
  module, x = _prepare(name, batch, side, device, channels_last)
  module.eval()
  forward = torch.compile(module) if compiled else module

  def call() -> object:
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
      for _ in range(repeats):
        forward(x)
    return _wait(device)

  return call


def _prepare(
  name: str, batch: int, side: int, device: str, channels_last: bool
) -> tuple[nn.Module, torch.Tensor]:
  layout = torch.channels_last if channels_last else torch.contiguous_format
  module = network(name).to(device)
  x = torch.from_numpy(images(batch, side)).permute(0, 3, 1, 2).to(device)
  return module.to(memory_format=layout), x.contiguous(memory_format=layout)


def _wait(device: str) -> None:
  if device == 'cuda':
    torch.cuda.synchronize()
