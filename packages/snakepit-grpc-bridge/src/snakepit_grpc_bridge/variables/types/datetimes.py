"""Dates with times. Pure."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["is_plain_zone", "read_datetime", "read_moment"]


def read_moment(value: Any) -> datetime:
    """Return a datetime that has a zone, and so means one moment everywhere."""
    stored = read_datetime(value)
    if stored.tzinfo is None:
        raise Unfit("has no zone; give it one, as in datetime.now(UTC)")
    return stored


def read_datetime(value: Any) -> datetime:
    """Return an exact ``datetime``, with or without a zone.

    UTC, a fixed offset and a ``ZoneInfo`` stay; of any other zone, the offset at that moment.
    """
    if not issubclass(type(value), datetime):
        raise Unfit
    try:
        return _exact(value)
    except Unfit:
        raise
    except Exception as error:  # its zone, or its class, is the caller's
        raise Unfit("can't be read as date, time and zone") from error


def is_plain_zone(zone: Any) -> bool:
    """Say whether a zone is data: none, a fixed offset, or a name that is known everywhere."""
    if zone is None or type(zone) is timezone:
        return True
    # Who has a ZoneInfo has loaded its module, which is slow to import.
    zoneinfo: Any = sys.modules.get("zoneinfo")
    return zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo and zone.key is not None


def _exact(value: datetime) -> datetime:
    if type(value) is not datetime:
        if getattr(value, "nanosecond", 0):
            raise Unfit("has nanoseconds, which would be lost; round it to microseconds")
        # By the methods of the base, which run none of the subclass.
        value = datetime.combine(datetime.date(value), datetime.timetz(value))
    if is_plain_zone(value.tzinfo):
        return value
    offset = value.utcoffset()
    return value.replace(tzinfo=None if offset is None else timezone(offset))
