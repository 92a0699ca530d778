"""An exported model behind HTTP, for plants without an inference server."""

from jaxdefect.serve.endpoint import Inspect, make_app

__all__ = ['Inspect', 'make_app']
