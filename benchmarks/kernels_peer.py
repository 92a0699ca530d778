"""The other side of ``benchmarks.kernels``: torchvision's RoIAlign and suppression.

Started as ``benchmarks.torchvision_peer`` is, which serves deformable convolution:

    {"make": {"operator": "roi_align", "arrays": "PATH.npz", "settings": {...}}}
        -> {"means": ..., "peak_bytes": ...}
"""

from typing import Any

import numpy as np

from benchmarks.torchvision_peer import PASSES, Peer, serve


class Operators(Peer):
  """One operator at one size; ``nms`` has a forward pass alone."""

  def make(self, operator: str, arrays: str, settings: dict[str, Any]) -> dict[str, Any]:
    import torchvision  # pyright: ignore[reportMissingImports]

    torch, operators = self.torch, torchvision.ops
    with np.load(arrays) as made:
      tensors = {name: torch.from_numpy(array).to(self.device) for name, array in made.items()}

    if operator == 'nms':

      def kept() -> list:
        found = operators.nms(tensors['boxes'], tensors['scores'], **settings)
        return [torch.tensor(float(len(found))), found.sum()]

      self.passes = {PASSES[0]: kept}
    else:
      features = tensors['features'].permute(0, 3, 1, 2).contiguous().requires_grad_()
      cotangent = tensors['cotangent'].permute(0, 3, 1, 2).contiguous()
      boxes = torch.cat([tensors['batch_index'][:, None].float(), tensors['boxes']], 1)

      def apply() -> Any:
        return operators.roi_align(features, boxes, **settings)

      def forward() -> list:
        with torch.no_grad():
          return [apply()]

      def both() -> list:
        y = apply()
        return [y.detach(), *torch.autograd.grad(y, [features], cotangent)]

      self.passes = dict(zip(PASSES, (forward, both)))
    return {
      'means': {
        name: [float(one.double().abs().mean()) for one in call()]
        for name, call in self.passes.items()
      },
      'peak_bytes': {name: self.peak(call) for name, call in self.passes.items()},
    }


if __name__ == '__main__':
  serve(Operators)
