"""Event loops and threads: how they wait for, wake and call each other."""
