"""Who takes part. Each contender is imported in its own host process only."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from benchmarks.pool.contenders.base import Contender

_HERE: Final = "benchmarks.pool.contenders"

#: Name -> where its factory is, and the options the factory gets.
CONTENDERS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "limit": ("limit:BlockingEcho", {}),
    "asyncio_echo": ("limit:AsyncioEcho", {}),
    "snakepit": ("snakepit_pool:SnakepitContender", {}),
    "snakepit_no_spin": ("snakepit_pool:SnakepitContender", {"spin": 0}),
    "snakepit_no_look_ahead": ("snakepit_pool:SnakepitContender", {"look_ahead": 0}),
    "snakepit_thread": ("snakepit_pool:ThreadContender", {}),
    "snakepit_handler": ("snakepit_listened:HandlerContender", {"spin": 0}),
    "snakepit_opentelemetry": ("snakepit_listened:OpenTelemetryContender", {"spin": 0}),
    "snakepit_connection": ("snakepit_pool:ConnectionContender", {}),
    "snakepit_executor": ("executors:SnakepitContender", {}),
    "ppe": ("executors:StandardContender", {}),
    "ppe_preloaded": ("executors:PreloadedContender", {}),
    "loky": ("executors:LokyContender", {}),
    "pebble": ("executors:PebbleContender", {}),
    "xoscar": ("xoscar_actors:XoscarContender", {}),
    "ray": ("ray_actors:RayContender", {}),
}
PEERS: Final = ("ppe", "loky", "pebble", "xoscar", "ray")


def create(name: str) -> Contender:
    """The contender of that name.

    Raises:
        ImportError: it is not installed.
    """
    place, options = CONTENDERS[name]
    module, _, attribute = place.partition(":")
    factory: Callable[..., Contender] = getattr(
        importlib.import_module(f"{_HERE}.{module}"), attribute
    )
    return factory(**options)
