"""A file is complete or absent."""

import os

import pytest

from lira.atomic import remove_stale, write_atomically


def test_an_interrupt_while_writing_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", lambda file: file.write(b"content"))
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask(tmp_path):
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", lambda file: file.write(b"content"))
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
    stale, other = tmp_path / ".shadow_00.pt.abc.part", tmp_path / "notes.part"
    stale.write_bytes(b"incomplete")
    other.write_text("the user's")

    def write(file):
        remove_stale(tmp_path)  # as another process would at this moment
        file.write(b"complete")

    write_atomically(tmp_path / "shadow_01.pt", write)
    assert not stale.exists()
    assert other.exists()
    assert (tmp_path / "shadow_01.pt").read_bytes() == b"complete"
