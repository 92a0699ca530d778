"""Launchers: parse, build, call. Each is run as ``python -m launch.<name>``."""
