"""What every deployed PyTorch model takes and knows; runs without JAX.

Shape legend: N images, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Deployed(nn.Module):
  """Pixels in, scores and probabilities out; classes and image size beside the weights.

  Args:
    classes: names of the classes, in the order of the scores.
    mean: three numbers in 0..1, subtracted from pixels / 255.
    std: three numbers in 0..1, by which they are divided then.
    image_size: (height, width) that images must have; None takes any.
  """

  mean: Tensor
  std: Tensor

  def __init__(
    self,
    *,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Sequence[int] | None,
  ):
    super().__init__()
    self.classes = tuple(classes)
    self.image_size = None if image_size is None else tuple(image_size)
    # Part of the arguments, not of the weights.
    self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
    self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)

  def normalised(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W]; complains about other shapes and sizes."""
    if images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(f'images must be [N, H, W, 3], came as {list(images.shape)}')
    if self.image_size is not None and tuple(images.shape[1:3]) != self.image_size:
      raise ValueError(
        f'images must be {self.image_size[0]} x {self.image_size[1]} pixels, '
        f'came as {images.shape[1]} x {images.shape[2]}'
      )
    x = images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
    return (x - self.mean) / self.std
