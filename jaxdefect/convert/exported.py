"""An exported model, whichever file it comes from: numpy in, numpy out; needs no JAX.

Shape legend: N images, H x W native pixels.
"""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from jaxdefect.convert.onnx_file import OnnxModel


class Model(Protocol):
  """What can be asked of an exported model.

  Attributes:
    described: what it says about itself, see ``model.json``.
    outputs: names of what a call returns.
    classes: names of the classes.
  """

  described: dict[str, Any]
  outputs: tuple[str, ...]
  classes: tuple[str, ...]

  def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``."""
    ...


class TorchModel:
  """A twin that takes and gives numpy arrays.

  Args:
    module: from ``twins.load``.
  """

  def __init__(self, module: Any):
    self.module = module
    self.described: dict[str, Any] = module.described
    self.outputs: tuple[str, ...] = tuple(module.outputs)
    self.classes: tuple[str, ...] = tuple(module.classes)

  def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``."""
    import torch

    with torch.inference_mode():
      return tuple(one.numpy() for one in self.module(torch.from_numpy(np.array(images))))


def open_model(path: str | pathlib.Path) -> Model:
  """Opens what ``launch.convert`` wrote.

  Args:
    path: the folder, which is run by PyTorch, or the ``.onnx`` file in it (or anywhere else), which
      is run by onnxruntime.

  Returns:
    The ``Model``.

  Raises:
    ValueError: there is none, or it is damaged or of another version.
    ModuleNotFoundError: what runs it is not installed.
  """
  path = pathlib.Path(path)
  if path.suffix == '.onnx':
    return OnnxModel(path)
  try:
    from jaxdefect.convert import twins
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'{error}: pip install torch, or name the ONNX file ({path / "model.onnx"})'
    ) from None
  return TorchModel(twins.load(path))


def run(
  model: Model, pictures: Iterable[np.ndarray], *, batch_size: int = 16
) -> dict[str, np.ndarray]:
  """What a model says of pictures of any sizes.

  Neighbours of one size go through together.

  Args:
    model: an exported model.
    pictures: uint8 [H, W, 1 or 3] each.
    batch_size: pictures that go through at once, at most; a model of a fixed batch has its own.

  Returns:
    Output -> [N, ...].

  Raises:
    ValueError: no picture, or one of another size than a fixed one of the model.
  """
  static = (model.described.get('input') or {}).get('static')
  parts = []
  for group in _groups(pictures, static[0] if static else batch_size):
    images = np.stack([np.repeat(one, 3, axis=2) if one.shape[2] == 1 else one for one in group])
    if static:
      if list(images.shape[1:3]) != list(static[1:]):
        raise ValueError(
          f'the model takes pictures of {static[1]} x {static[2]} pixels (it was converted with '
          f'--static); this one has {images.shape[1]} x {images.shape[2]}'
        )
      images = np.pad(images, ((0, static[0] - len(group)), (0, 0), (0, 0), (0, 0)))
    parts.append([output[: len(group)] for output in model(images)])
  if not parts:
    raise ValueError('there is no picture to run the exported model on')
  return {name: np.concatenate(some) for name, some in zip(model.outputs, zip(*parts))}


def _groups(pictures: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
  group: list[np.ndarray] = []
  for one in pictures:
    if group and (len(group) == size or one.shape != group[0].shape):
      yield group
      group = []
    group.append(one)
  if group:
    yield group
