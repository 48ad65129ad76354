"""Which file stands at a path."""

from __future__ import annotations

from pathlib import Path

from snakepit_grpc_bridge.storage.sql.identity import identity_reader


def test_a_file_is_known_by_what_stat_says_of_it(tmp_path: Path) -> None:
    path = tmp_path / "ä file"
    path.touch()
    for there in (path, tmp_path, Path("/dev/null")):
        found = there.stat()
        assert identity_reader()(str(there)) == (found.st_dev, found.st_ino)


def test_a_file_that_is_written_or_moved_stays_the_same_one(tmp_path: Path) -> None:
    identity = identity_reader()
    path = tmp_path / "file"
    path.touch()
    before = identity(str(path))
    path.write_text("more")
    assert identity(str(path)) == before
    path.rename(tmp_path / "moved")
    assert identity(str(tmp_path / "moved")) == before
    assert identity(str(path)) is None


def test_a_file_that_replaces_another_is_another_one(tmp_path: Path) -> None:
    identity = identity_reader()
    path, other = tmp_path / "file", tmp_path / "other"
    path.touch()
    other.touch()
    before = identity(str(path))
    other.replace(path)
    assert before is not None
    assert identity(str(path)) not in (None, before)
