"""An ML platform on snakepit's worker processes."""

__version__ = "0.1.0"
