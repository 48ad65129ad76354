"""A thousand hosts killed on each database; STORAGE_CRASH_ROUNDS and SOAK_SEED change that.

Left out of `make test` by its marker.
"""

from __future__ import annotations

import os
import secrets

import pytest
from storage_crashes import crash_rounds

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]
ROUNDS = int(os.environ.get("STORAGE_CRASH_ROUNDS", "1000"))
SEED = int(os.environ.get("SOAK_SEED") or secrets.randbelow(2**32))


async def test_a_thousand_hosts_that_are_killed_lose_nothing(database_url: str) -> None:
    print(f"\nstorage crashes: STORAGE_CRASH_ROUNDS={ROUNDS} SOAK_SEED={SEED}")
    await crash_rounds(database_url, ROUNDS, SEED)
