"""Which file stands at a path."""

from __future__ import annotations

import os
from pathlib import Path

from snakepit_grpc_bridge.storage.sql.identity import identity_reader


def test_a_file_is_known_by_what_stat_says_of_it(tmp_path: Path) -> None:
    path = tmp_path / "ä file"
    path.touch()
    for there in (path, tmp_path, Path("/dev/null")):
        found = there.stat()
        device = os.major(found.st_dev), os.minor(found.st_dev)
        assert identity_reader()(bytes(there)) == (*device, found.st_ino)


def test_a_file_that_is_written_or_moved_stays_the_same_one(tmp_path: Path) -> None:
    identity = identity_reader()
    path = tmp_path / "file"
    path.touch()
    before = identity(bytes(path))
    path.write_text("more")
    assert identity(bytes(path)) == before
    path.rename(tmp_path / "moved")
    assert identity(bytes(tmp_path / "moved")) == before
    assert identity(bytes(path)) is None


def test_a_file_that_replaces_another_is_another_one(tmp_path: Path) -> None:
    identity = identity_reader()
    path, other = tmp_path / "file", tmp_path / "other"
    path.touch()
    other.touch()
    before = identity(bytes(path))
    other.replace(path)
    assert before is not None
    assert identity(bytes(path)) not in (None, before)
