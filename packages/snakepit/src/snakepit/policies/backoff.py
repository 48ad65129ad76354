"""How long to wait before a call is made again. Pure: the random number is an argument."""

from __future__ import annotations

# Doubled more often, any first delay is past any sensible limit, and soon past what a float holds.
_MOST_DOUBLINGS = 64


def full_jitter(retry: int, *, first: float, longest: float, chance: float) -> float:
    """Seconds to wait before the ``retry``-th retry (the first is 1).

    The ceiling is ``first``, doubles with each retry, and is at most ``longest``; the delay is a
    ``chance``, from 0 to 1, of it. With a uniform chance callers that failed together spread over
    the whole interval, which does the most against their meeting again ("full jitter": M. Brooker,
    Exponential Backoff And Jitter, AWS Architecture Blog, 2015).

    >>> [full_jitter(n, first=0.1, longest=1.0, chance=0.5) for n in (1, 2, 3, 9)]
    [0.05, 0.1, 0.2, 0.5]
    """
    return chance * min(longest, first * 2.0 ** min(retry - 1, _MOST_DOUBLINGS))
