"""Array in, array out: image operations without parameters."""

from jaxdefect.ops.pixels import normalize_pixels
from jaxdefect.ops.warp import affine_grid, warp

__all__ = ['affine_grid', 'normalize_pixels', 'warp']
