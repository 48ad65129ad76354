"""The version of the package; worker and host compare it in the handshake."""

__version__ = "0.1.0"
