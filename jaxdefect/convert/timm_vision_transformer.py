"""Keys of vision transformers' files: DINOv2's own, and timm's.

Both name almost everything alike, and so do we. Where DINOv2 has registers, timm calls them
``reg_token`` and has added the position of the class token to the token itself.
"""

from collections.abc import Mapping

import numpy as np

from jaxdefect import models

BACKBONES = tuple(models.VISION_TRANSFORMERS)
HEAD = ('head.weight', 'head.bias')
EXAMPLE = 'blocks.0.attn.qkv.weight'
UNUSED = ('mask_token',)  # stands for patches that are hidden in training

# timm's names, in which its files are saved, and those of DINOv2's files.
FILE_NAMES = {
  f'dinov2_vit{letter}14{ours}': (
    f'dinov2_vit{letter}14{ours}',
    f'dinov2_vit{letter}14{theirs}_pretrain',
    f'vit_{size}_patch14{theirs}_dinov2',
  )
  for letter, size in (('s', 'small'), ('b', 'base'), ('l', 'large'))
  for ours, theirs in (('', ''), ('_reg', '_reg4'))
} | {
  f'vit_{letter}16': (f'vit_{letter}16', f'vit_{size}_patch16_224')
  for letter, size in (('s', 'small'), ('b', 'base'))
}


def dinov2_state(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A state dict under DINOv2's names.

  Args:
    state: of a transformer, under DINOv2's names or timm's.

  Returns:
    The same network: registers are ``register_tokens``, and the class token has a position, which
    is zero where timm has added it to the token.

  >>> state = {'reg_token': np.ones((1, 4, 2)), 'pos_embed': np.ones((1, 9, 2))}
  >>> {key: value.shape for key, value in dinov2_state(state).items()}
  {'pos_embed': (1, 10, 2), 'register_tokens': (1, 4, 2)}
  """
  state = dict(state)
  if 'reg_token' in state and 'pos_embed' in state:
    places = state['pos_embed']
    state['pos_embed'] = np.concatenate([np.zeros_like(places[:, :1]), places], axis=1)
    state['register_tokens'] = state.pop('reg_token')
  return state
