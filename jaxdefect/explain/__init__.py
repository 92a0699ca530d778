"""Pictures of what a model looks at, and the report that holds them."""

from jaxdefect.explain import gradcam, mistakes, overlays, plots, report

__all__ = ['gradcam', 'mistakes', 'overlays', 'plots', 'report']
