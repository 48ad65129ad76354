"""The wire: frames, and the values inside them. See PROTOCOL.md."""
