"""Policies around calls: retry, circuit breaker, hedging. Everything runs in the host.

A policy stands between a caller and whatever runs commands (a pool, a session, or any object with
their ``execute``), so the pool itself pays nothing for it. ``circuit``, ``backoff``, ``budget`` and
``durations`` decide, and are pure; ``retry``, ``breaker`` and ``hedge`` are the shells around them.
"""

from __future__ import annotations

from snakepit.policies.breaker import CircuitBreaker
from snakepit.policies.circuit import CircuitState
from snakepit.policies.hedge import HedgePolicy
from snakepit.policies.retry import RetryPolicy
from snakepit.policies.stack import Policy, PolicyCall, PolicyStack, with_policies

__all__ = [
    "CircuitBreaker",
    "CircuitState",
    "HedgePolicy",
    "Policy",
    "PolicyCall",
    "PolicyStack",
    "RetryPolicy",
    "with_policies",
]
