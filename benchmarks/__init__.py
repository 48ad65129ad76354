"""What the project measures; see `make bench`."""
