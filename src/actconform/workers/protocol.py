"""The messages between the driver and a worker, and how they travel: one frame a message.

A frame is magic `ACF1`, the header's length (uint32), the body's length (uint64), both little endian, then the header
and the body. The header is the message in msgpack. Where the message has an array, the header has an extension (code 1)
holding `[dtype, shape, offset]`; the array's C-order little-endian bytes stand at that offset of the body, aligned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from actconform.errors import ProtocolError
from actconform.types import Artifact, Case  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.types.model import Model  # noqa: TC001  as above
from actconform.types.trained import LayerCall, OpenedModel, RunMode, TrainedRun, TrainedSource
from actconform.types.training_run import TrainingRecord, TrainingTask  # noqa: TC001  as above

Bundle: TypeAlias = Mapping[str, NDArray[Any]]
Message = TypeVar("Message")

MAGIC = b"ACF1"
PREFIX = struct.Struct("<4sIQ")
ARRAY = 1  # the msgpack extension code
ALIGNMENT = 64
COALESCE = 1 << 16

SHORT_NAMES = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "i64": "<i8", "i32": "<i4", "u8": "|u1", "bool": "|b1"}
SHORT_NAME_OF = {code: name for name, code in SHORT_NAMES.items()}
ML_DTYPES: dict[str, np.dtype[Any]] = {"bf16": np.dtype(ml_dtypes.bfloat16)}


DESCRIBED = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], int])  # dtype, shape, offset


class Handshake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message of a worker, sent without a request.

    `unavailable` is why the backend cannot run here, `problem` why the worker cannot serve at all; both are empty where it
    can. `provider` is the distribution of the backend, with its version; `plugins` has all versions. Interpreter, machine and
    processor are those that the worker's process sees: an emulated one is not the driver's. `code` is a digest of the
    plugins' files and of all packages there, where the backend has exporters.
    """

    actconform: str
    plugins: dict[str, str]
    backend: str
    kind: str = ""
    provider: str = ""
    facts: dict[str, str] = {}
    unavailable: str = ""
    problem: str = ""
    python: str = ""
    executable: str = ""
    platform: str = ""
    machine: str = ""
    cpu: str = ""
    cpu_features: str = ""
    code: str = ""
    pid: int = 0


class Call(msgspec.Struct, frozen=True):
    """One call of the program: inputs of one regime, and the cotangents of its outputs where the aspect is gradient.

    Its arrays lie aligned and contiguous in the worker, or as the `layout` says (see `layouts`), all or, with `first_plain`, all
    but the first. What is raised where it `may_refuse` ends this call alone.
    """

    regime: str
    inputs: Bundle
    cotangents: Bundle | None = None
    layout: str = ""
    first_plain: bool = False
    may_refuse: bool = False


class Job(msgspec.Struct, frozen=True, tag=True):
    """One case: what to build or load, and the calls to make on it.

    `repeated` are the calls, by index, that are made again after the last one, in that order. With `side_effects` it is asked too
    what programs and calls leave behind, and do to each other. With `surviving` no call is made: the tensors that survive
    optimization are asked for. `name` is what messages call it, by default the case.
    """

    case: Case
    artifact: Artifact | None
    calls: list[Call]
    level: str = ""
    intermediates: bool = False  # whether the layers' values at the first call are wanted
    statistics: bool = False  # whether the running statistics after the first call are wanted
    batch: int = 0  # of a model, where it is not the model's own
    repeated: tuple[int, ...] = (0,)
    side_effects: bool = False
    surviving: bool = False
    name: str = ""


class ExportJob(msgspec.Struct, frozen=True, tag=True):
    """One graph to make: by which exporter of the worker's backend, of which subject, at which dtype, with which constants.

    `constants` are None where parameters are to be inputs, and empty for a model without parameters, as users ship it.
    """

    exporter: str
    subject: str
    dtype: str
    constants: Bundle | None = None
    model: Model | None = None
    """The subject itself, where it is a model that the catalog does not have, as those of experiments."""

    @property
    def id(self) -> str:
        return f"{self.subject}/{self.dtype}/{self.exporter}"


class Failure(msgspec.Struct, frozen=True):
    """Why a job stopped; `call` is the index of the call that failed, where one did.

    Of kind "source" where the user's own model or file is at fault.
    """

    stage: Literal["supports", "build", "load", "open", "run", "export"]
    kind: Literal["unsupported", "unavailable", "error", "memory", "source"]
    message: str
    call: int | None = None


class JobResult(msgspec.Struct, kw_only=True, tag=True):
    """The result of a job: one bundle a call, in order, up to the failure where there was one; `intermediates` and `statistics` are
    None where the job does not want them, or the program has none.

    `placement` is the program's. `leaks` says what many further calls, or programs, take and never give back. `entangled` lists
    (what was done, output name): bits that differed from the first answer when other programs, methods or threads were at work.
    `changed` lists (setting, what changed it and how) of the process; `altered` is whether the process is not as it was before the
    job. `mutated` lists (call, input name) changed in place, "cotangent NAME" for a cotangent. `refused` has, by call, why the
    program raised where its arrays lay as `Call.layout` says, when it was made with aligned ones, or where it `may_refuse`: then
    its bundle is empty. `unsteady` lists (call, output name) whose bits differed when the call was made again; NaN payloads do not
    count. `second` has the outputs of such a call when they first differed. `surviving` has the names of the tensors that survive
    optimization, None where the job does not ask for them.
    """

    outputs: list[Bundle] = []
    intermediates: Bundle | None = None
    statistics: Bundle | None = None
    mutated: list[tuple[int, str]] = []
    refused: dict[int, str] = {}
    unsteady: list[tuple[int, str]] = []
    second: dict[int, dict[str, NDArray[Any]]] = {}
    implementation: str = ""
    placement: dict[str, tuple[str, ...]] = {}
    leaks: list[str] = []
    entangled: list[tuple[str, str]] = []
    changed: list[tuple[str, str]] = []
    altered: bool = False
    surviving: tuple[str, ...] | None = None
    failure: Failure | None = None
    timings: dict[str, float] = {}


class ExportResult(msgspec.Struct, kw_only=True, tag=True):
    """The result of an export: the graph or the failure, never both, and the seconds that it took, imports included."""

    artifact: Artifact | None = None
    failure: Failure | None = None
    seconds: float = 0.0


class TrainedJob(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What to do with a user's trained model, which is opened first unless it is the one that is open.

    open: say what it is. run: its outputs for `inputs`, with `layers` the values of all layers; `twice` runs it again. gradients: of `inputs` and parameters,
    by `cotangents`. parameters: all weights. export: its graph, by `exporter`. layer call: the call of `layer` for `inputs`.
    """

    source: TrainedSource
    action: Literal["open", "run", "gradients", "parameters", "export", "layer call"]
    inputs: Bundle = {}
    cotangents: Bundle = {}
    mode: RunMode = RunMode()
    layers: bool = False
    twice: bool = False
    exporter: str = ""
    layer: str = ""

    @property
    def id(self) -> str:
        """What messages call it."""
        return f"{self.action} {self.source.text}"


class TrainedResult(msgspec.Struct, kw_only=True, tag=True):
    """The result of a TrainedJob: what its action gives, or the failure.

    `unsteady` are the outputs whose bits differed in the second run, which gave `second`; `mutated` the inputs that were changed in place.
    """

    opened: OpenedModel | None = None
    run: TrainedRun | None = None
    arrays: Bundle = {}
    artifact: Artifact | None = None
    layer_call: LayerCall | None = None
    unsteady: list[str] = []
    second: Bundle = {}
    mutated: list[str] = []
    failure: Failure | None = None
    seconds: float = 0.0


class TrainingJob(msgspec.Struct, frozen=True, tag=True):
    """One training: natively, or by a graph of a step and one of the model in inference, which a runtime loads."""

    case: Case
    task: TrainingTask
    step: Artifact | None = None
    inference: Artifact | None = None


class TrainingResult(msgspec.Struct, kw_only=True, tag=True):
    """The result of a training: its record or the failure, never both, and the seconds that it took."""

    record: TrainingRecord | None = None
    failure: Failure | None = None
    seconds: float = 0.0


class Stream(Protocol):
    """The part of a raw binary stream that frames need; both calls may move fewer bytes than asked."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def write(self, data: memoryview, /) -> int | None: ...


@lru_cache
def wire_name(dtype: np.dtype[Any]) -> str:
    """Return the name under which `dtype` travels: "f32", "bf16", ..., else numpy's own ("<c8").

    Raises ProtocolError for what has no bytes of its own (object) or no name that tells their meaning (a struct).
    """
    if _is_extended(dtype):
        return next((short for short, extended in ML_DTYPES.items() if dtype == extended), dtype.name)
    if dtype.kind in "OV" or dtype.itemsize == 0:
        raise ProtocolError(f"an array of dtype {dtype} cannot be sent: wanted numbers, such as float32")
    code = dtype.newbyteorder("<").str
    return SHORT_NAME_OF.get(code, code)


@lru_cache
def wire_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype that travels under `name`; raise ProtocolError where there is none."""
    if name in ML_DTYPES:
        return ML_DTYPES[name]
    try:
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name, SHORT_NAMES.get(name, name)))
    except TypeError:
        raise ProtocolError(f"garbage in a frame: no dtype is called {name!r}") from None
    if dtype.itemsize == 0 or (dtype.kind in "OV" and not _is_extended(dtype)):
        raise ProtocolError(f"garbage in a frame: an array cannot have dtype {name!r}")
    return dtype


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    """Return a writable C-order copy at a multiple of 64 bytes, so that alignment makes no difference between calls."""
    copy = aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def write_message(stream: Stream, message: object) -> None:
    """Write `message`, a struct of this module, as one frame; its arrays may have any layout and byte order, and one that it has twice is sent once.

    Raises ProtocolError for an array that cannot be sent, before anything is written, and what the stream raises.
    """
    chunks: list[NDArray[np.uint8]] = []
    offset = 0
    written: dict[int, msgspec.msgpack.Ext] = {}

    def describe(value: object) -> msgspec.msgpack.Ext:
        nonlocal offset
        if id(value) in written:
            return written[id(value)]
        if not isinstance(value, np.ndarray):
            raise ProtocolError(f"a {type(value).__name__} cannot be sent: wanted numpy arrays")
        name = wire_name(value.dtype)
        chunk = _wire_bytes(value)
        described = msgspec.msgpack.encode([name, value.shape, offset])
        chunks.append(chunk)
        offset += _padded(chunk.nbytes)
        written[id(value)] = msgspec.msgpack.Ext(ARRAY, described)
        return written[id(value)]

    header = msgspec.msgpack.Encoder(enc_hook=describe).encode(message)
    if len(header) >= 1 << 32:
        raise ProtocolError(f"{len(header)} bytes beside the arrays cannot be sent: the limit is 4 GiB")
    pending = bytearray(PREFIX.pack(MAGIC, len(header), offset)) + header
    for chunk in chunks:
        if len(pending) + chunk.nbytes > COALESCE:
            _write_all(stream, memoryview(pending))
            pending = bytearray()
        if chunk.nbytes > COALESCE:
            _write_all(stream, chunk.data)
        else:
            pending += chunk.data
        pending += bytes(_padded(chunk.nbytes) - chunk.nbytes)
    _write_all(stream, memoryview(pending))


def read_message(stream: Stream, kind: type[Message]) -> Message:
    """Read one frame and return it as `kind`; its arrays are writable, C-contiguous, and share a buffer of their own.

    Raises EOFError if the stream ends before the frame, ProtocolError if it ends within or holds something else.
    """
    prefix = bytearray(PREFIX.size)
    if (got := _read_into(stream, memoryview(prefix))) == 0:
        raise EOFError
    if bytes(prefix[:got])[:4] != MAGIC[:got]:
        start = bytes(prefix[:got])
        raise ProtocolError(f"garbage where a frame should begin: {start!r}; did something else write to this pipe?")
    _expect(got, PREFIX.size, "prefix")
    _, header_size, body_size = PREFIX.unpack(prefix)
    header = bytearray(header_size)
    _expect(_read_into(stream, memoryview(header)), header_size, "header")
    body = aligned_bytes(body_size)
    _expect(_read_into(stream, body.data), body_size, "body")

    def rebuild(code: int, data: memoryview) -> NDArray[Any]:
        if code != ARRAY:
            raise ProtocolError(f"garbage in a frame: unknown extension {code}")
        name, shape, offset = DESCRIBED.decode(data)
        dtype = wire_dtype(name)
        size = math.prod(shape) * dtype.itemsize
        if min((*shape, offset)) < 0 or offset + size > body_size:
            where = f"at {offset} lies outside a body of {body_size} bytes"
            raise ProtocolError(f"garbage in a frame: {name}{list(shape)} {where}")
        return body[offset : offset + size].view(dtype).reshape(shape)

    try:
        return msgspec.msgpack.Decoder(kind, ext_hook=rebuild).decode(header)
    except msgspec.DecodeError as error:
        wanted = getattr(kind, "__name__", kind)  # a union has no name
        raise ProtocolError(f"garbage in a frame: its header is no {wanted}: {error}") from error


@lru_cache  # numpy makes up the name anew each time
def _is_extended(dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` is one of ml_dtypes: numpy's own letter for it ("<V2") does not tell which."""
    return getattr(ml_dtypes, dtype.name, None) is dtype.type


def _wire_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The array's C-order little-endian bytes: a view of it where it already lies so."""
    dtype = array.dtype
    if _is_extended(dtype):
        dtype = np.dtype(f"u{dtype.itemsize}")
        array = np.asarray(array, order="C").view(dtype)
    flat = np.asarray(array, dtype=dtype.newbyteorder("<"), order="C").reshape(-1)
    return flat.view(np.uint8)


def aligned_bytes(size: int, multiple: int = ALIGNMENT) -> NDArray[np.uint8]:
    """Return `size` bytes, not set to anything, at an address that is a multiple of `multiple`."""
    buffer = np.empty(size + multiple, np.uint8)
    start = -buffer.__array_interface__["data"][0] % multiple
    return buffer[start : start + size]


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT


def _write_all(stream: Stream, data: memoryview) -> None:
    while len(data):
        data = data[stream.write(data) or 0 :]


def _read_into(stream: Stream, buffer: memoryview) -> int:
    """Fill `buffer`, or as much of it as comes before the end; return how much."""
    done = 0
    while done < len(buffer):
        got = stream.readinto(buffer[done:])
        if not got:
            break
        done += got
    return done


def _expect(got: int, wanted: int, part: str) -> None:
    if got < wanted:
        where = f"after {got} of the {wanted} bytes of its {part}"
        raise ProtocolError(f"truncated frame: it ends {where}; did the other side die?")
