"""The arrays of an .npz or .npy, read along their first axis without loading them."""

from __future__ import annotations

import math
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from actconform.checking.inputs import MOST_BYTES, read_npy_header
from actconform.errors import UsageError
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error)


class ArrayRows:
    """The rows of one array along its first axis, read once, from the first to the last."""

    def __init__(self, stream: IO[bytes], size: int, shown: str) -> None:
        header = read_npy_header(stream, size, shown)
        if not header.shape:
            raise UsageError(f"{shown}: is a scalar; the first axis of a data set counts samples")
        if header.fortran_order and len(header.shape) > 1:
            raise UsageError(
                f"{shown}: lies in memory column by column, so that no row can be read by itself: save numpy.ascontiguousarray(array)"
            )
        self.shape = header.shape
        self.length = header.shape[0]
        self._dtype = header.dtype
        self._stream = stream
        self._shown = shown
        self._read = 0

    def take(self, count: int) -> NDArray[Any]:
        """Return the next `count` rows, fewer at the end. Raises UsageError where the file is damaged or cut off."""
        rows = min(count, self.length - self._read)
        shape = (rows, *self.shape[1:])
        size = math.prod(shape) * self._dtype.itemsize
        if size > MOST_BYTES:
            raise UsageError(
                f"{self._shown}: a sample has {number_of(size, 'byte')}; at most {MOST_BYTES:,} are read at once"
            )
        content = bytearray()
        try:
            while len(content) < size and (piece := self._stream.read(size - len(content))):
                content += piece
        except (*DAMAGE, OSError) as error:
            raise UsageError(f"{self._shown}: is damaged at row {self._read}: {one_line(str(error), 200)}") from error
        if len(content) < size:
            raise UsageError(f"{self._shown}: is cut off at row {self._read} of {self.length:,}")
        self._read += rows
        if not size:
            return np.empty(shape, self._dtype)
        return np.frombuffer(content, self._dtype).reshape(shape)


@contextmanager
def open_rows(path: Path) -> Iterator[dict[str, ArrayRows]]:
    """Give the arrays of an .npz by name, or that of a .npy under "". Raises UsageError, naming the file, for what is neither."""
    shown = one_line(str(path))
    if not path.is_file():
        raise UsageError(f"{shown}: is no regular file")
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            if file.read(2) != b"PK":
                file.seek(0)
                rows = {"": ArrayRows(file, path.stat().st_size, shown)}
            else:
                rows = _archive(stack, file, shown)
            yield rows
    except DAMAGE as error:
        raise UsageError(
            f"{shown}: is a damaged archive ({one_line(str(error), 200)}): write it again with numpy.savez"
        ) from error
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {one_line(str(error.strerror or error))}") from error


def _archive(stack: ExitStack, file: IO[bytes], shown: str) -> dict[str, ArrayRows]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    if not members:
        raise UsageError(f"{shown}: is a zip archive without arrays; write it with numpy.savez")
    return {
        member.filename.removesuffix(".npy"): ArrayRows(
            stack.enter_context(archive.open(member)), member.file_size, f"{shown}: {one_line(member.filename, 80)}"
        )
        for member in members
    }
