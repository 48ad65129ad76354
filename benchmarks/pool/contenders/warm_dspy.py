"""A fork server that preloads this module has DSPy imported, and has used it."""

from __future__ import annotations

from benchmarks.pool.commands import predict

predict(1)
