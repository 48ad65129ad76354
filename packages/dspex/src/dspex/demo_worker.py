"""What `dspex demo` runs in its workers besides language model programs.

It is outside of what workers may call by default: the demo names it in `import_allow`.
"""

from __future__ import annotations

import os
import time

from snakepit_grpc_bridge.worker import call_tool

#: Far longer than the demo lasts: the worker is killed while it runs.
LONG = 600.0


def count_in_stock(item: str) -> str:
    """Ask the host how many there are of an item; this process can't know."""
    count = call_tool("stock", item=item)
    return f"{count} {item}, says process {os.getpid()}"


def work_for_long() -> None:
    """Tell the host which process this is, then block."""
    call_tool("long_work_began", pid=os.getpid())
    time.sleep(LONG)
