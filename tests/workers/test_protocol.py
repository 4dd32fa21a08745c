"""Frames: what goes in comes out, whatever its layout; what is no frame is said to be none."""

from __future__ import annotations

import io
import os
import struct
import threading
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from actconform.errors import ProtocolError
from actconform.types import Artifact, Case
from actconform.workers.protocol import (
    Call,
    ExportJob,
    ExportResult,
    Job,
    JobResult,
    aligned_copy,
    read_message,
    write_message,
)
from actconform.workers.server import REQUEST


def frame(message: object) -> bytes:
    stream = io.BytesIO()
    write_message(stream, message)
    return stream.getvalue()


def sent(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return read_message(io.BytesIO(frame(JobResult(outputs=[{"a": array}]))), JobResult).outputs[0]["a"]


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(
        st.one_of(
            arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.complex_number_dtypes(), arrays.boolean_dtypes()
        ),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.booleans(),
)
def test_any_number_arrives_as_it_was(array: np.ndarray[Any, Any], transposed: bool) -> None:
    array = array.T if transposed else array
    got = sent(array)
    assert got.dtype == array.dtype.newbyteorder("<")
    assert got.shape == array.shape
    assert got.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert got.flags.writeable
    assert got.flags.c_contiguous


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_extended_dtypes_keep_every_bit(dtype: type) -> None:
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    array = np.arange(2 ** (8 * bits.itemsize), dtype=bits).view(dtype)
    got = sent(array[::-1])
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.view(bits), array.view(bits)[::-1])


def test_bf16_travels_as_little_endian_uint16() -> None:
    assert frame(JobResult(outputs=[{"a": np.array([1.0], ml_dtypes.bfloat16)}]))[-64:-62] == b"\x80\x3f"


def test_a_job_arrives_whole() -> None:
    case = Case("gelu-erf", "gradient", "f32", "authored+ort-cpu")
    calls = [
        Call("edge", {"x": np.array([np.nan, -0.0], np.float32)}, {"y": np.ones(2, np.float32)}),
        Call("special", {"x": np.zeros(0, np.float32), "slope": np.float32([0.25])}),
    ]
    got = read_message(io.BytesIO(frame(Job(case, Artifact(b"\x00model", 20, "authored", ("w",)), calls))), Job)
    assert (got.case, got.artifact) == (case, Artifact(b"\x00model", 20, "authored", ("w",)))
    assert [call.regime for call in got.calls] == ["edge", "special"]
    assert got.calls[0].inputs["x"].tobytes() == calls[0].inputs["x"].tobytes()
    assert got.calls[0].cotangents is not None
    assert got.calls[1].cotangents is None
    assert got.calls[1].inputs["slope"] == 0.25


def test_an_export_arrives_whole_and_requests_are_told_apart() -> None:
    job = Job(Case("relu", "value", "f32", "torch"), None, [])
    export = ExportJob("tf2onnx", "gelu-erf", "bf16")
    stream = io.BytesIO(frame(job) + frame(export) + frame(JobResult()))
    assert [read_message(stream, REQUEST), read_message(stream, REQUEST)] == [job, export]
    assert export.id == "gelu-erf/bf16/tf2onnx"
    with pytest.raises(ProtocolError, match=r"its header is no .*Job \| .*ExportJob"):
        read_message(stream, REQUEST)
    made = ExportResult(artifact=Artifact(b"\x00graph", 15, "from_function", ("w",), ir_version=8), seconds=0.5)
    assert read_message(io.BytesIO(frame(made)), ExportResult) == made


def test_received_arrays_are_aligned_and_do_not_overlap() -> None:
    got = read_message(
        io.BytesIO(frame(JobResult(outputs=[{str(n): np.full(n, n, np.int8) for n in range(1, 70)}]))), JobResult
    )
    for array in got.outputs[0].values():
        assert array.ctypes.data % 64 == 0
        array[...] = 99
    assert not np.shares_memory(got.outputs[0]["1"], got.outputs[0]["2"])
    assert aligned_copy(np.arange(5)[::2]).tolist() == [0, 2, 4]
    assert aligned_copy(np.arange(5)).ctypes.data % 64 == 0


def test_frames_follow_each_other_through_a_pipe() -> None:
    reader, writer = os.pipe()
    sizes = (0, 3, 1 << 20, 7)

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as stream:
            for size in sizes:
                write_message(stream, JobResult(outputs=[{"a": np.full(size, size, np.float64), "b": np.arange(3)}]))

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb", buffering=0) as stream:
        for size in sizes:
            got = read_message(stream, JobResult).outputs[0]
            assert got["a"].shape == (size,)
            assert (got["a"] == size).all()
            assert got["b"].tolist() == [0, 1, 2]
        with pytest.raises(EOFError):
            read_message(stream, JobResult)
    thread.join()


@pytest.mark.parametrize(("keep", "part"), [(5, "prefix"), (20, "header"), (-1, "body")])
def test_a_truncated_frame_is_said_to_be_one(keep: int, part: str) -> None:
    whole = frame(JobResult(outputs=[{"a": np.arange(9.0)}]))
    with pytest.raises(
        ProtocolError, match=f"truncated frame: it ends after .* bytes of its {part}; did the other side die"
    ):
        read_message(io.BytesIO(whole[:keep]), JobResult)


def test_what_is_no_frame_is_shown() -> None:
    with pytest.raises(
        ProtocolError, match=r"garbage where a frame should begin: b'Hello from my l.*did something else write"
    ):
        read_message(io.BytesIO(b"Hello from my library"), JobResult)
    with pytest.raises(ProtocolError, match="garbage where a frame should begin: b'Hi'"):
        read_message(io.BytesIO(b"Hi"), JobResult)
    with pytest.raises(ProtocolError, match="garbage in a frame: its header is no JobResult"):
        read_message(io.BytesIO(frame(Job(Case("relu", "value", "f32", "torch"), None, []))), JobResult)


@pytest.mark.parametrize(
    ("described", "complaint"),
    [
        (["f32", [3], 0], r"f32\[3\] at 0 lies outside a body of 8 bytes"),
        (["f32", [-1], 0], "lies outside a body"),
        (["f32", [1], -4], "lies outside a body"),
        (["|O", [1], 0], "an array cannot have dtype '|O'"),
        (["float99", [1], 0], "no dtype is called 'float99'"),
        (["f32"], "its header is no JobResult"),
    ],
)
def test_a_false_description_of_an_array_is_refused(described: list[object], complaint: str) -> None:
    extension = msgspec.msgpack.Ext(1, msgspec.msgpack.encode(described))
    header = msgspec.msgpack.encode({"type": "JobResult", "outputs": [{"a": extension}]})
    with pytest.raises(ProtocolError, match=f"garbage in a frame: .*{complaint}".replace("|", r"\|")):
        read_message(io.BytesIO(struct.pack("<4sIQ", b"ACF1", len(header), 8) + header + bytes(8)), JobResult)


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, [("a", "f4")]), np.zeros(2, "V2")])
def test_what_has_no_bytes_is_refused_before_anything_is_written(array: np.ndarray[Any, Any]) -> None:
    stream = io.BytesIO()
    with pytest.raises(ProtocolError, match="cannot be sent: wanted numbers, such as float32"):
        write_message(stream, JobResult(outputs=[{"good": np.zeros(1 << 20), "bad": array}]))
    assert stream.getvalue() == b""
    with pytest.raises(ProtocolError, match="a complex cannot be sent: wanted numpy arrays"):
        write_message(stream, JobResult(outputs=[{"bad": 1j}]))  # type: ignore[dict-item]
