"""The benchmarks of docs/performance.md: what each compares, and what was asked of it."""

from typing import NamedTuple


class Section(NamedTuple):
  """What the page says about a benchmark before its figures.

  Attributes:
    title: of the section.
    command: that measures it.
    note: what is compared.
  """

  title: str
  command: str
  note: str


SECTIONS = {
  'cpu': Section(
    'A recogniser on a CPU',
    'python -m benchmarks.cpu --threads=2',
    'A training step (forward with batch statistics, backward, SGD with momentum) and an inference '
    'of ResNet-50, 8 images of 224 pixels, against the same network in PyTorch, in its usual '
    'layout and in `channels_last`; and the pipeline from JPEG files to augmented batches against '
    'a DataLoader. `--backbone=mobilenet_v2` takes another network.',
  ),
  'gpu': Section(
    'A recogniser on a GPU',
    'python -m benchmarks.gpu',
    'The same step and inference on a GPU, in float32 (TF32 on both sides) and bfloat16, against '
    'PyTorch plain, in `channels_last`, with autocast and `torch.compile`. The command also runs '
    'deformable convolution, MAML, PatchCore and the detector on the GPU.',
  ),
  'detector': Section(
    'The detector',
    'python -m benchmarks.detector --threads=2 --torchvision-python=PATH',
    "Faster R-CNN (ResNet-50-FPN) against torchvision's, from the same weights on the same images: "
    'a training step with two images of 640 x 640, an inference with one. *Whole method* is the '
    "paper's: deformable convolution, GS neck and head, prototypes.",
  ),
  'maml': Section(
    'Learning to learn',
    'python -m benchmarks.maml --threads=2',
    'A meta-step of second-order MAML, four tasks of 16 + 16 images, with one and with five inner '
    "steps, against PyTorch's double backward.",
  ),
  'patchcore': Section(
    'PatchCore',
    'python -m benchmarks.patchcore --threads=2 --anomalib-python=PATH',
    'Choosing a coreset, and scoring images against a memory bank, against anomalib and an equal '
    "plain PyTorch. `matrix product alone` is PyTorch's product of queries and bank, which every "
    'exact search contains in one form or another.',
  ),
  'deform-conv': Section(
    'Deformable convolution',
    'python -m benchmarks.deform_conv --threads=2 --torchvision-python=PATH',
    "Ours against torchvision's operator, and beside it the textbook formulation in JAX, which "
    'materialises all samples.',
  ),
  'kernels': Section(
    'Kernels in Pallas',
    'python -m benchmarks.kernels --torchvision-python=PATH',
    'Every kernel against its twin in XLA, and what has no kernel. `--interpret` runs them step by '
    'step on any device: that they compute the same, and no time.',
  ),
  'augmentation': Section(
    'Augmentation',
    'python -m benchmarks.augmentation --threads=2 --torchvision-python=PATH',
    "A batch of random views against torchvision's transforms, which draw once per call: views "
    'that differ need a call per image.',
  ),
  'deployment': Section(
    'Exported models',
    'python -m benchmarks.deployment RUN',
    'One model as it predicts in JAX, exported to PyTorch and to ONNX, from decoded pixels to the '
    'verdict. All are ours; a ratio above 1 says that the export is faster than JAX.',
  ),
  'serve': Section(
    'The endpoint under load',
    'python -m benchmarks.serve EXPORT PICTURE',
    'wrk on the same machine asks for verdicts, first as many at a time as the endpoint queues, '
    'then four times as many: what does not fit is refused at once (503), and the memory stays.',
  ),
  'review-queue': Section(
    'The review queue',
    'python -m benchmarks.review_queue',
    'A page of 50 out of a queue of 100,000 pictures, beside the same query without its index, and '
    'a verdict until it is on the disk.',
  ),
}


class Target(NamedTuple):
  """What was asked of a benchmark.

  Attributes:
    title: of the row.
    benchmark: whose cases count; a name alone, without a size or network.
    gpu: on a GPU, or on a CPU.
    cases: pattern of the titles that count.
    key: 'seconds' or 'peak_bytes'.
    most: ours over the best peer must not exceed it; None where nothing was asked.
  """

  title: str
  benchmark: str
  gpu: bool
  cases: str
  key: str
  most: float | None


def _both(title: str, benchmark: str, cases: str, most: float) -> list[Target]:
  """Time and memory, on a CPU and on a GPU."""
  return [
    Target(f'{title}{what}', benchmark, gpu, cases, key, limit)
    for gpu in (False, True)
    for what, key, limit in (('', 'seconds', most), (', peak memory', 'peak_bytes', 1.0))
  ]


TARGETS = (
  *(
    Target(f'{title}{what}', 'cpu', False, cases, key, limit)
    for title, cases in (
      ('ResNet-50, training step', 'train_step'),
      ('ResNet-50 recogniser, three views', 'three_views'),
    )
    for what, key, limit in (('', 'seconds', 1.2), (', peak memory', 'peak_bytes', 1.0))
  ),
  Target('ResNet-50, training step', 'gpu', True, 'resnet50 train_step', 'seconds', None),
  *_both('detector, training step', 'detector', 'train step', 1.2),
  *_both('MAML, meta-step', 'maml', 'meta-step', 0.5),
  *_both('PatchCore, scoring', 'patchcore', 'score', 0.7),
)
