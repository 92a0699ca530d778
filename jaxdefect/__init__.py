"""Find industrial defects from few samples, in JAX.

Import the room you need, for example ``from jaxdefect import losses, methods, ops``.
This module itself imports nothing heavy, so the exported PyTorch models load without JAX.
"""

__version__ = '0.1.0'
