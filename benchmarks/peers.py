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


def three_views(
  name: str, *, batch: int, side: int, channels_last: bool = False, sizes: tuple = (512, 128)
) -> Callable[[], object]:
  """The step of source B: a backbone, an MLP, NT-Xent of three views, ArcFace, and SGD.

  The views are given; ours draws them in its step.

  Args:
    name: of the network.
    batch: images per step; three times as many pass the network.
    side: of the images, in pixels.
    channels_last: memory format of network and images.
    sizes: of the MLP's hidden and last layer.

  Returns:
    A call that runs a step.
  """
  module, x = _prepare(name, 3 * batch, side, 'cpu', channels_last)
  features = module.fc.in_features
  module.fc = nn.Sequential(nn.Linear(features, sizes[0]), nn.ReLU(), nn.Linear(*sizes))
  centres = nn.Parameter(torch.randn(sizes[1], 10))
  label = torch.arange(batch) % 10
  optimizer = torch.optim.SGD([*module.parameters(), centres], lr=1e-3, momentum=0.9)
  itself = torch.eye(2 * batch, dtype=torch.bool)
  partner = torch.arange(2 * batch).roll(batch)

  def nt_xent(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    z = functional.normalize(torch.cat([one, other]))
    return functional.cross_entropy((z @ z.T / 0.5).masked_fill(itself, -torch.inf), partner)

  def arcface(z: torch.Tensor) -> torch.Tensor:
    cosine = functional.normalize(z) @ functional.normalize(centres, dim=0)
    angle = torch.arccos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    margin = 0.5 * functional.one_hot(label, 10)
    return functional.cross_entropy(30 * torch.cos(angle + margin), label)

  def call() -> object:
    optimizer.zero_grad(set_to_none=True)
    a, b, c = module(x).chunk(3)
    contrastive = (nt_xent(a, b) + nt_xent(a, c) + nt_xent(b, c)) / 3
    (0.75 * contrastive + 0.25 * arcface(a)).backward()
    optimizer.step()
    return None

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
