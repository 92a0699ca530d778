"""The programs that an export brings along: how to use it where jaxdefect is not installed."""

_READ_AND_SAY = '''

def read(name):
  """As RGB: more than 8 bits through the window of training, what is transparent over black."""
  try:
    with Image.open(name) as opened:
      picture = ImageOps.exif_transpose(opened)
  except (OSError, SyntaxError) as error:
    sys.exit(f'{name} cannot be read: {error}')
  if picture.mode.startswith('I'):
    low, high = described['data']['sixteen_bit_range']
    scale = 255 / (high - low)
    picture = picture.convert('F').point(lambda v: v * scale + (0.5 - low * scale)).convert('L')
  if picture.has_transparency_data:
    picture = picture.convert('RGBA')
    picture = Image.alpha_composite(Image.new('RGBA', picture.size, (0, 0, 0, 255)), picture)
  return picture.convert('RGB')


def decision(said):
  """In a word: the verdict, flagged or ok, the class of each box, or the class and how sure."""
  classes = described['classes']
  if 'verdict' in said:
    return ('ok', 'review', 'reject')[said['verdict']]
  if 'flagged' in said:
    return 'flagged' if said['flagged'] else 'ok'
  if 'boxes' in said:
    return [classes[k] for k, is_box in zip(said['labels'], said['valid']) if is_box]
  best = said['scores'].index(max(said['scores']))
  sure = said['probabilities'][best]
  return f'{classes[best]} ({"> 99.9" if sure > 0.999 else f"{100 * sure:.1f}"} %)'


def tell(name, said):
  """The decision; below it what the model gave, to four digits, lists in the order of classes."""
  print(name, decision(said))
  short = json.loads(json.dumps(said), parse_float=lambda digits: float(f'{float(digits):.4g}'))
  for key, value in {'classes': described['classes'], **short}.items():
    print(f'  {key}: {value}')


'''

TORCH = (
  '''"""python example.py PICTURE ...; needs torch, and Pillow to decode pictures."""
import json
import pathlib
import sys

import torch
from PIL import Image, ImageOps

from model import load

MAPS = ('maps', 'evidence')
model = load(pathlib.Path(__file__).parent)
described = model.described
'''
  + _READ_AND_SAY
  + """for name in sys.argv[1:]:
  picture = read(name)
  pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
  with torch.inference_mode():
    said = model(pixels.reshape(1, picture.height, picture.width, 3))
  said = {k: v[0].tolist() for k, v in zip(model.outputs, said) if k not in MAPS}
  tell(name, said)
"""
)

ONNX = (
  '''"""python example_onnx.py PICTURE ...; needs onnxruntime, and Pillow to decode pictures."""
import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MAPS = ('maps', 'evidence')
session = onnxruntime.InferenceSession(pathlib.Path(__file__).with_name('model.onnx'))
described = json.loads(session.get_modelmeta().custom_metadata_map['jaxdefect'])
'''
  + _READ_AND_SAY
  + """for name in sys.argv[1:]:
  said = session.run(described['outputs'], {'images': np.asarray(read(name))[None]})
  said = {k: v[0].tolist() for k, v in zip(described['outputs'], said) if k not in MAPS}
  tell(name, said)
"""
)
