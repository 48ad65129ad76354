"""A pool's control socket: how a command in another process looks at a running pool.

Opt-in, by ``SNAKEPIT_CONTROL=1`` in the environment of the host. It shows and changes nothing: two
read-only requests, for processes of the same user.
"""
