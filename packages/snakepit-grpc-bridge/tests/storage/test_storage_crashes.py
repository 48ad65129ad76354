"""A host that is killed at any place loses nothing that it was told, and leaves nothing half done.

The long version is in tests/soak.
"""

from __future__ import annotations

import pytest
from storage_crashes import PLACES, crash_rounds

ROUNDS = 4 * len(PLACES)


@pytest.mark.slow
async def test_hosts_that_are_killed_lose_nothing(database_url: str) -> None:
    await crash_rounds(database_url, ROUNDS, seed=1)
