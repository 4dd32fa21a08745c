"""The messages between actconform and a runtime that serves, and the loop of such a runtime in Python.

This file needs the standard library and numpy alone, so that a runtime may copy it. docs/runtimes-that-compile.md has the format.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROTOCOL = b"1"
MAGIC = b"ACS1"
HELLO, LOAD, CALL, UNLOAD, BYE = 1, 2, 3, 4, 5
DONE, UNSUPPORTED, ERROR = 16, 17, 18
MOST_BYTES = 1 << 30  # of all blobs of a message
MOST_BLOBS = 1 << 16
LONGEST_NAME = 1 << 16  # bytes
LONGEST_NPY_HEAD = 1 << 9  # bytes, of those that are parsed once: plain types of few axes have 128
HEAD = struct.Struct("<4sIII")  # magic, kind, graph, number of blobs
BLOB = struct.Struct("<IQ")  # bytes of the name, bytes of the content


class FrameError(Exception):
    """What came is no message of this protocol, or is larger than one may be."""


class GraphUnsupported(Exception):  # noqa: N818  a refusal is no error
    """Raised by a runtime that does not do what a graph or a call asks; its text is the reason."""


class Frame(NamedTuple):
    """One message: its kind, the number of the graph that it is about (0 where there is none), and blobs by name."""

    kind: int
    graph: int = 0
    blobs: Mapping[str, bytes] = {}


class Pipe(Protocol):
    """The part of a raw stream that messages need; both calls may move fewer bytes than asked."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def write(self, data: memoryview, /) -> int | None: ...


def write_frame(pipe: Pipe, frame: Frame) -> None:
    """Write one message. Raises FrameError, before anything is written, where it is larger than a message may be."""
    size = sum(map(len, frame.blobs.values()))
    if size > MOST_BYTES or len(frame.blobs) > MOST_BLOBS:
        raise FrameError(f"{len(frame.blobs):,} tensors of {size:,} bytes: a message has at most {MOST_BYTES:,} bytes")
    pieces = [HEAD.pack(MAGIC, frame.kind, frame.graph, len(frame.blobs))]
    for name, content in frame.blobs.items():
        pieces += [BLOB.pack(len(name.encode()), len(content)), name.encode(), content]
    rest = memoryview(b"".join(pieces))
    while rest:
        rest = rest[pipe.write(rest) or 0 :]


def read_frame(pipe: Pipe) -> Frame:
    """Return the next message. Raises EOFError where the stream ends before it, FrameError where what comes is none."""
    head = _exactly(pipe, HEAD.size, beginning=True)
    magic, kind, graph, count = HEAD.unpack(head)
    if magic != MAGIC or count > MOST_BLOBS:
        raise FrameError(f"{bytes(head)!r} is no beginning of a message; did something else write to this pipe?")
    blobs: dict[str, bytes] = {}
    left = MOST_BYTES
    for _ in range(count):
        name_size, size = BLOB.unpack(_exactly(pipe, BLOB.size))
        left -= size
        if name_size > LONGEST_NAME or left < 0:
            raise FrameError(f"a blob of {size:,} bytes: a message has at most {MOST_BYTES:,}, names {LONGEST_NAME:,}")
        try:
            name = _exactly(pipe, name_size).decode()
        except UnicodeDecodeError as error:
            raise FrameError(f"a name is not UTF-8: {error}") from None
        if name in blobs:
            raise FrameError(f"two blobs are called {name!r}")
        blobs[name] = bytes(_exactly(pipe, size))
    return Frame(kind, graph, blobs)


def npy_bytes(array: Any) -> bytes:
    """Return the array as the content of a .npy file, C order, little endian. Raises ValueError for an array of objects."""
    plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return _npy_head(plain.dtype, plain.shape) + bytes(plain.tobytes())


def npy_array(content: bytes) -> Any:
    """Return the array of the content of a .npy file, writable. Raises what numpy raises for anything else than one whole array of numbers."""
    head = content[: 10 + int.from_bytes(content[8:10], "little")]
    if content[6:8] == b"\x01\x00" and len(head) <= LONGEST_NPY_HEAD:
        shape, fortran_order, dtype = _npy_layout(head)
        if not (fortran_order or dtype.hasobject) and len(content) - len(head) == dtype.itemsize * math.prod(shape) > 0:
            return np.frombuffer(content, dtype, offset=len(head)).reshape(shape).copy()
    stream = io.BytesIO(content)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if more := len(content) - stream.tell():
        raise ValueError(f"{more} bytes follow the array")
    return array


@lru_cache(256)  # numpy takes longer for a head than for a small array
def _npy_head(dtype: Any, shape: tuple[int, ...]) -> bytes:
    if dtype.hasobject:
        raise ValueError("an array of objects is no tensor")
    stream = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, layout)
    return stream.getvalue()


@lru_cache(256)
def _npy_layout(head: bytes) -> tuple[tuple[int, ...], bool, Any]:
    stream = io.BytesIO(head)
    np.lib.format.read_magic(stream)
    return np.lib.format.read_array_header_1_0(stream)


def answer_requests(about: str, load: Callable[[str], Callable[[dict[str, Any]], Mapping[str, Any]]]) -> None:
    """Be a runtime: answer messages on standard input until it ends, or says goodbye. What is printed goes to standard error.

    `about` says what the runtime is, with its version. `load(path)` returns a function that takes arrays by name and gives arrays
    by name. Either may raise GraphUnsupported; whatever else they raise is an error of that request alone.
    """
    requests, answers = io.BufferedReader(io.FileIO(os.dup(0), "r"), 1 << 16), io.FileIO(os.dup(1), "w")
    os.dup2(2, 1)
    graphs: dict[int, Callable[[dict[str, Any]], Mapping[str, Any]]] = {}
    while True:
        try:
            request = read_frame(requests)
        except EOFError:
            return
        if request.kind == BYE:
            return
        try:
            answer = Frame(DONE, request.graph, _result(about, load, graphs, request))
        except GraphUnsupported as refusal:
            answer = Frame(UNSUPPORTED, request.graph, {"message": str(refusal).encode()})
        except Exception as error:  # noqa: BLE001  it costs this request alone
            words = f"{type(error).__name__}: {error}".encode()
            answer = Frame(ERROR, request.graph, {"message": words})
        write_frame(answers, answer)


def _result(
    about: str,
    load: Callable[[str], Callable[[dict[str, Any]], Mapping[str, Any]]],
    graphs: dict[int, Callable[[dict[str, Any]], Mapping[str, Any]]],
    request: Frame,
) -> dict[str, bytes]:
    if request.kind == HELLO:
        protocol = request.blobs.get("protocol", b"")
        if protocol != PROTOCOL:
            raise ValueError(f"protocol {protocol.decode(errors='replace')} is asked for; this is {PROTOCOL.decode()}")
        return {"protocol": PROTOCOL, "about": about.encode()}
    if request.kind == LOAD:
        graphs[request.graph] = load(request.blobs["path"].decode(sys.getfilesystemencoding(), "surrogateescape"))
        return {}
    if request.kind == CALL:
        inputs = {name: npy_array(content) for name, content in request.blobs.items()}
        return {name: npy_bytes(np.asarray(array)) for name, array in graphs[request.graph](inputs).items()}
    if request.kind == UNLOAD:
        graphs.pop(request.graph, None)
        return {}
    raise ValueError(f"no request is of kind {request.kind}")


def _exactly(pipe: Pipe, size: int, *, beginning: bool = False) -> bytearray:
    content = bytearray(size)
    done = 0
    while done < size:
        count = pipe.readinto(memoryview(content)[done:])
        if not count:
            if beginning and not done:
                raise EOFError
            raise FrameError(f"the stream ends after {done} of {size} bytes of a part of a message")
        done += count
    return content
