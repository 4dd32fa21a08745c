"""Files: what somebody else may have made is read here, a regular file of a sane size or an error; what is ours is written whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

GIB = 1 << 30
PIECE = 1 << 16  # bytes
MOST_OF_A_TEXT = 1 << 26  # bytes of settings, of a register
# Not every system has all of them; without O_BINARY Windows changes the ends of lines.
READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def read_bytes(path: Path | str, at_most: int = GIB, *, start: int = 0, length: int | None = None) -> bytes:
    """Return what a file holds, or `length` bytes of it from byte `start`; links are followed.

    Raises OSError, its `strerror` in words: where there is no such file or it cannot be read; where it is a pipe, a device, a
    folder or the like, which might never end or never answer; where more than `at_most` bytes would be read, or fewer than
    `length` are there; where the path is no path.
    """
    try:
        before = os.stat(path)  # noqa: PTH116  before it is opened: opening a device may do something
        _expect_regular(before, path)
        descriptor = os.open(path, READ)
    except ValueError as error:  # NUL in it, or a letter that the file system cannot spell
        raise OSError(errno.EINVAL, f"is no path ({error})", str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        there = os.fstat(descriptor)
        _expect_regular(there, path)
        end = there.st_size if length is None else start + length
        if end - start > at_most:
            raise OSError(errno.EOVERFLOW, f"has {end - start:,} bytes to be read; at most {at_most:,} are", str(path))
        if end > there.st_size or start > there.st_size:
            words = f"has {there.st_size:,} bytes, and {end - start:,} from byte {start:,} on are asked for"
            raise OSError(errno.EINVAL, words, str(path))
        file.seek(start)
        content = file.read(end - start)
        if length is None:  # it may grow meanwhile, or tell no size
            while len(content) <= at_most and (more := file.read(PIECE)):
                content += more
    if len(content) > at_most:
        raise OSError(errno.EOVERFLOW, f"has more than {at_most:,} bytes", str(path))
    return content


def read_text(path: Path | str, at_most: int = MOST_OF_A_TEXT) -> str:
    """Return the text of a file in UTF-8. Raises OSError as `read_bytes` does, and UnicodeDecodeError."""
    return read_bytes(path, at_most).decode("utf-8")


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file in one step: there is all of it afterwards, or what was there before. Raises OSError.

    `durable` waits until the disk has it, so that a power cut leaves one or the other too.
    """
    target = Path(os.path.realpath(path))
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, fresh)
        fresh.replace(target)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def temporary_folder(prefix: str) -> Path:
    """Make an empty folder for this process where the system keeps such; those that were left with that prefix are removed."""
    sweep_folders(prefix)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def sweep_folders(prefix: str) -> None:
    """Remove the temporary folders with that prefix whose processes were killed."""
    import psutil

    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        number = folder.name.removeprefix(prefix).partition("-")[0]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _expect_regular(status: os.stat_result, path: Path | str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file (a pipe, a device or the like)", str(path))
