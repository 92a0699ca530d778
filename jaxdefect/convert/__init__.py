"""Weights from and to PyTorch; imports nothing here, so the PyTorch twins load without JAX."""
