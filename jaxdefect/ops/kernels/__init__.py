"""Fused GPU kernels in Pallas, each with its twin in plain JAX beside it in ``ops``.

The operations that have one take ``implementation``: 'xla' is the twin; 'pallas' is the kernel
where the program is compiled for CUDA and the shapes and types suit it, else the twin;
'pallas_interpret' is the kernel step by step on any device, for tests. None is the twin, since no
kernel has been measured on a GPU: ``benchmarks.kernels`` does that, and where a kernel wins,
``choice.implementation_or_default`` is the one place to change.

The kernels fetch rows by an array of places, which Pallas does through its Triton backend alone,
and JAX 0.11 deprecates that one. So no module of a kernel is imported before it is asked for.
"""

from jaxdefect.ops.kernels.choice import implementation_or_default, run

__all__ = ['implementation_or_default', 'run']
