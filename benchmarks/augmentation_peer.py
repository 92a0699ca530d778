"""The other side of ``benchmarks.augmentation``: torchvision's transforms in its own interpreter.

Requests and answers go as in ``benchmarks.torchvision_peer``:

    {"make": {"shape": [N, H, W, C], "angle": ..., "alpha": ..., "sigma": ..., "brightness": ...}}
        -> {"displacement": root mean square in pixels, per axis}
    {"run": "per image"}  ->  {"wall": seconds, "cpu": seconds}
"""

from typing import Any

import numpy as np

from benchmarks.torchvision_peer import Peer, serve

PASSES = ('per image', 'one draw per batch')


def pictures(shape: tuple[int, ...]) -> np.ndarray:
  """The same pictures for both sides: [N, H, W, C] uint8."""
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class Transforms(Peer):
  """Rotation, elastic deformation and brightness of byte tensors."""

  def make(
    self, shape: list[int], angle: float, alpha: float, sigma: float, brightness: float
  ) -> dict[str, Any]:
    """Prepares both passes; without an elastic deformation where ``alpha`` is 0."""
    from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

    torch = self.torch
    images = torch.from_numpy(pictures(tuple(shape))).permute(0, 3, 1, 2).contiguous()
    images = images.to(self.device)
    elastic = v2.ElasticTransform(alpha=alpha, sigma=sigma)
    turn = v2.RandomRotation(angle, interpolation=v2.InterpolationMode.BILINEAR)
    light = v2.ColorJitter(brightness=brightness)
    chain = v2.Compose([turn, elastic, light] if alpha else [turn, light])

    def each() -> Any:
      # A transform draws once per call, so views that differ need a call each.
      with torch.inference_mode():
        return torch.stack([chain(image) for image in images])

    def together() -> Any:
      with torch.inference_mode():
        return chain(images)

    self.passes = dict(zip(PASSES, (each, together)))
    drawn = [elastic.make_params([images[0]])['displacement'] for _ in range(8)]
    pixels = torch.stack(drawn) * (shape[1] / 2)  # torchvision's sides go from -1 to 1
    return {'displacement': float(pixels.square().mean().sqrt())}


if __name__ == '__main__':
  serve(Transforms)
