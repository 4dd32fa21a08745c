"""A regular file of a sane size is read; whatever else stands in its place is an error at once, in words."""

from __future__ import annotations

import os
import resource
import stat
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from actconform.files import PIECE, read_bytes, read_text, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    path.symlink_to("/dev/urandom")


def listening(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


HARMFUL: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "is no regular file"),
    "device": (device, "is no regular file"),
    "endless": (endless, "is no regular file"),
    "socket": (listening, "is no regular file"),
    "folder": (folder, "Is a directory"),
    "loop": (loop, "Too many levels of symbolic links"),
    "nowhere": (nowhere, "No such file"),
    "huge": (huge, "1,099,511,627,776 bytes"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_what_is_no_regular_file_of_a_sane_size_is_not_read(kind: str, tmp_path: Path) -> None:
    make, words = HARMFUL[kind]
    make(tmp_path / "file")
    with pytest.raises(OSError, match=words) as raised:
        read_bytes(tmp_path / "file")
    assert words in (raised.value.strerror or "")


def test_a_path_that_is_none_is_an_error_like_any_other() -> None:
    with pytest.raises(OSError, match="is no path"):
        read_bytes("a\0b")


def test_a_file_and_a_part_of_one_are_read_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link") == b"0123456789"
    assert read_bytes(tmp_path / "file", 4, start=3, length=4) == b"3456"
    assert read_bytes(tmp_path / "file", 10) == b"0123456789"
    for at_most, start, length in ((9, 0, None), (100, 8, 3), (100, 11, None), (3, 0, 4)):
        with pytest.raises(OSError, match="bytes"):
            read_bytes(tmp_path / "file", at_most, start=start, length=length)


def test_a_file_that_tells_no_size_is_read_up_to_the_limit(tmp_path: Path) -> None:
    grows = tmp_path / "status"
    grows.symlink_to("/proc/self/status")  # of 0 bytes, by what the system says
    if not grows.exists():
        pytest.skip("only Linux has /proc")
    assert b"Name:" in read_bytes(grows)
    with pytest.raises(OSError, match="more than 5 bytes"):
        read_bytes(grows, 5)


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "file")) == 10
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_text_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("ä".encode())
    assert read_text(tmp_path / "file") == "ä"
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "file")


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"before")
    path.chmod(0o640)
    write_bytes(path, b"after")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"after", 0o640)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bytes(path, b"something else" * PIECE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"after"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
