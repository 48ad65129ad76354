"""Python functions in the workers, called by their paths."""

from __future__ import annotations
