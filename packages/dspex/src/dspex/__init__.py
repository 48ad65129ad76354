"""DSPy programs and language model patterns in worker processes."""

__version__ = "0.1.0"
