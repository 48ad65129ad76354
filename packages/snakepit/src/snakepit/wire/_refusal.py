"""The internal signal of the codec that one value can't travel."""

from __future__ import annotations


class Refusal(Exception):
    """Raised by an encoder with a reason; the codec turns it into an EncodeError with a path."""
