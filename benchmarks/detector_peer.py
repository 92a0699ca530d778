"""The other side of ``benchmarks.detector``: torchvision's Faster R-CNN in its own interpreter.

Requests and answers go as in ``benchmarks.torchvision_peer``:

    {"make": {"weights": PATH.npz, "side": 640, "train_batch": 2, "batch": 1, "half": false}}
        -> {"peak_bytes": {...}, "loss": ..., "scores": [...]}
    {"run": "train step channels_last"}  ->  {"wall": seconds, "cpu": seconds}
"""

from typing import Any

import numpy as np

from benchmarks.torchvision_peer import Peer, serve

CLASSES = 6
BOXES = 8
RATE = 1e-6  # too small to change what the next step has to do
LAYOUTS = ('', ' channels_last')


def pictures(batch: int, side: int) -> dict[str, np.ndarray]:
  """The same images and true boxes for both sides.

  Args:
    batch: N.
    side: of the images, pixels.

  Returns:
    ``image`` [N, side, side, 3] uint8 noise, ``boxes`` [N, 8, 4] and ``box_label`` [N, 8].
  """
  made: dict[str, list[np.ndarray]] = {'image': [], 'boxes': [], 'box_label': []}
  for index in range(batch):
    random = np.random.default_rng(index)  # an image is the same whatever the batch
    extent = random.uniform(side / 16, side / 2, (BOXES, 2))
    corner = random.uniform(size=(BOXES, 2)) * (side - extent)
    made['image'].append(random.integers(0, 256, (side, side, 3), np.uint8))
    made['boxes'].append(np.concatenate([corner, corner + extent], -1).astype(np.float32))
    made['box_label'].append(random.integers(0, CLASSES, BOXES).astype(np.int32))
  return {name: np.stack(arrays) for name, arrays in made.items()}


class FasterRCNN(Peer):
  """torchvision's Faster R-CNN, plain and channels_last, with weights that it is given."""

  def make(
    self, weights: str, side: int, train_batch: int, batch: int, half: bool
  ) -> dict[str, Any]:
    """Prepares a training step and an inference in both memory layouts."""
    first: dict[str, Any] = {}
    for layout in LAYOUTS:
      step, infer = self._passes(weights, side, train_batch, batch, half, bool(layout))
      self.passes |= {'train step' + layout: step, 'inference' + layout: infer}
      if not first:
        first = {'scores': infer()[0]['scores'].float().tolist(), 'loss': float(step())}
    return {'peak_bytes': {name: self.peak(call) for name, call in self.passes.items()}, **first}

  def _passes(self, weights, side, train_batch, batch, half, channels_last):
    from torchvision.models import detection  # pyright: ignore[reportMissingImports]

    torch = self.torch
    torch.backends.cudnn.benchmark = True  # cuDNN's own search; images have one size
    # ``fasterrcnn_resnet50_fpn`` freezes BatchNorm and the first stage only where it loads weights.
    backbone = detection.backbone_utils.resnet_fpn_backbone(
      backbone_name='resnet50', weights=None, trainable_layers=3
    )
    module = detection.FasterRCNN(backbone, CLASSES + 1, min_size=side, max_size=side)
    with np.load(weights) as arrays:
      module.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = module.to(self.device).to(memory_format=layout)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9)

    made = pictures(max(train_batch, batch), side)
    images = torch.from_numpy(made['image']).permute(0, 3, 1, 2).to(self.device) / 255
    targets = [
      {'boxes': boxes.to(self.device), 'labels': labels.to(self.device, torch.int64) + 1}
      for boxes, labels in zip(*(torch.from_numpy(made[k]) for k in ('boxes', 'box_label')))
    ]
    kind = torch.device(self.device).type

    def step() -> Any:
      module.train()
      optimizer.zero_grad(set_to_none=True)
      with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
        losses = module(list(images[:train_batch]), targets[:train_batch])
        loss: Any = sum(losses.values())
      loss.backward()
      optimizer.step()
      return loss.detach()

    def infer() -> Any:
      module.eval()
      with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
        return module(list(images[:batch]))

    return step, infer


if __name__ == '__main__':
  serve(FasterRCNN)
