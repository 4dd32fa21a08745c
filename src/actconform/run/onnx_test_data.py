"""Goldens as ONNX's standard test data: a folder for each case with model.onnx and numbered data sets, that any runtime can vendor."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform._version import __version__
from actconform.errors import Unsupported, UsageError
from actconform.files import write_bytes
from actconform.onnx.gates import io_names
from actconform.oracle.rounding import round_to
from actconform.run.subject import subject_of
from actconform.testdata.kernel_vectors import STORAGE, generate
from actconform.testdata.model_vectors import generate_model
from actconform.types import Kernel
from actconform.types.dtypes import DTYPES
from actconform.workers.protocol import Call
from actconform.workers.tensor_files import write_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Golden
    from actconform.testdata.kernel_vectors import TestVector
    from actconform.tolerance.limits import Tolerance
    from actconform.types import Artifact, Aspect
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

    F64 = NDArray[np.float64]

MANIFEST = "manifest.json"
SCHEMA = 1
KERNELS, MODELS = "kernel", "model"  # the kinds, as onnx's loader calls the folders
LEAST_RTOL, LEAST_ATOL = 1e-3, 1e-7  # those of onnx's loader
README = """# Test data of actconform {version}

Activation kernels and models, values and gradients, in ONNX's standard layout: each folder `{kernels}/test_*` and `{models}/test_*` has
`model.onnx`, `test_data_set_N/input_I.pb` and `output_I.pb` (TensorProto, in the order of the graph's inputs and outputs), and `data.json`
with the tolerances `rtol` and `atol`, which onnx's loader reads:

    from onnx.backend.test.loader import load_model_tests
    tests = load_model_tests("THIS FOLDER", "kernel")

In 16 bits one data set has all 65,536 patterns. Outputs are the truth, rounded once, to nearest, to the dtype of the graph. A gradient's
graph takes the cotangent `ct_y` (of a model `ct_loss`) and gives `d_NAME` for each input.

`rtol` and `atol` let pass whatever actconform's limits let pass, and more: `{manifest}` has for each data set and output the largest error that
they allow, and for each case how many data sets were left out.
"""


class ExportedDataSet(msgspec.Struct, frozen=True):
    """One data set: the family of its inputs, and for each output the largest error that the limits allow in it, absolute."""

    regime: str
    limits: dict[str, float]


class ExportedCase(msgspec.Struct, frozen=True, kw_only=True):
    """One folder: the case, its tolerances for onnx's runner, its data sets in order, and how many were left out, as their limits allow any error."""

    folder: str
    subject: str
    aspect: str
    dtype: str
    opset: int
    graph: str
    rtol: float
    atol: float
    data_sets: list[ExportedDataSet]
    left_out: int = 0


class TestDataManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds; `unsupported` says by case why there is no graph or truth of it."""

    schema: int
    actconform: str
    cases: list[ExportedCase]
    unsupported: dict[str, str]


def export_test_data(
    subjects: Sequence[Kernel | Model],
    golden_of: Callable[[str], Golden],
    target: Path,
    on_case: Callable[[str], None] = lambda _: None,
) -> TestDataManifest:
    """Write the test data of these subjects to `target`, a folder that is not there or empty, in one step; return what it holds.

    `golden_of` gives the goldens of a subject by name; `on_case` is called with each case beforehand. Raises UsageError where the folder has
    something in it or is none, and OSError where it cannot be written; nothing is left then.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is no folder: name one that is empty, or not there yet")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: name a folder that is, or that is not there yet")
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(fresh, ignore_errors=True)
    cases: list[ExportedCase] = []
    unsupported: dict[str, str] = {}
    try:
        for subject in subjects:
            for aspect, dtype in _aspects(subject):
                name = f"{subject.name}/{aspect}/{dtype}"
                on_case(name)
                try:
                    cases.append(_write_case(subject, aspect, dtype, golden_of, fresh))
                except Unsupported as refusal:
                    unsupported[name] = str(refusal)
        manifest = TestDataManifest(schema=SCHEMA, actconform=__version__, cases=cases, unsupported=unsupported)
        fresh.mkdir(exist_ok=True)  # it has no case
        readme = README.format(version=__version__, kernels=KERNELS, models=MODELS, manifest=MANIFEST)
        write_bytes(fresh / "README.md", readme.encode())
        write_bytes(fresh / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def folder_name(subject: str, aspect: str, dtype: str) -> str:
    """Return the name of a case's folder, which is a Python name too: "test_gelu_erf_value_f32". What is no letter or digit is "_",
    and "@" is "_at_", "." is "_point_", so that no two cases of a catalog share it.
    """
    spelled = subject.replace("@", "_at_").replace(".", "_point_")
    return f"test_{re.sub(r'[^A-Za-z0-9_]', '_', spelled)}_{aspect}_{dtype}"


def _aspects(subject: Kernel | Model) -> Iterator[tuple[Aspect, str]]:
    aspects: tuple[Aspect, ...] = ("value", "gradient") if subject.differentiable else ("value",)
    for aspect in aspects:
        yield from ((aspect, dtype) for dtype in DTYPES)


def _write_case(
    subject: Kernel | Model, aspect: Aspect, dtype: str, golden_of: Callable[[str], Golden], place: Path
) -> ExportedCase:
    line = subject_of(subject)
    if isinstance(subject, Kernel):
        kind, vectors = KERNELS, generate(subject, aspect, dtype, golden_of(subject.name))
    else:
        kind, vectors = MODELS, generate_model(subject, aspect, dtype, constants=False)
    graph = line.graph_for(line.author(dtype), aspect, list(vectors.vectors[0].truth))
    folder = place / kind / folder_name(subject.name, aspect, dtype)
    folder.mkdir(parents=True)
    write_bytes(folder / "model.onnx", graph.model)
    rtol, atol = LEAST_RTOL, LEAST_ATOL
    data_sets: list[ExportedDataSet] = []
    for vector in vectors.vectors:
        allowed = {name: _allowed(vectors.tolerance, vector, name) for name in vector.truth}
        if any(_allows_any(vector.truth[name], error) for name, error in allowed.items()):
            continue
        call = line.call_for(Call(vector.regime, vector.inputs, vector.cotangents), graph)
        _write_data_set(folder / f"test_data_set_{len(data_sets)}", call, vector, graph, dtype)
        for name, error in allowed.items():
            rtol, atol = _widened(rtol, atol, vector.truth[name], error, DTYPES[dtype])
        limits = {name: float(np.max(error, initial=0.0)) for name, error in allowed.items()}
        data_sets.append(ExportedDataSet(vector.regime, limits))
    write_bytes(folder / "data.json", msgspec.json.encode({"rtol": rtol, "atol": atol}) + b"\n")
    return ExportedCase(
        folder=f"{kind}/{folder.name}",
        subject=subject.name,
        aspect=aspect,
        dtype=dtype,
        opset=graph.opset,
        graph=graph.path,
        rtol=rtol,
        atol=atol,
        data_sets=data_sets,
        left_out=len(vectors.vectors) - len(data_sets),
    )


def _write_data_set(folder: Path, call: Call, vector: TestVector, graph: Artifact, dtype: str) -> None:
    folder.mkdir()
    inputs, outputs = io_names(graph.model)
    for index, name in enumerate(inputs):
        write_bytes(folder / f"input_{index}.pb", write_tensor(name, call.inputs[name], "pb"))
    for index, name in enumerate(outputs):
        write_bytes(folder / f"output_{index}.pb", write_tensor(name, _stored(vector, name, dtype), "pb"))


def _stored(vector: TestVector, name: str, dtype: str) -> NDArray[Any]:
    """Return the truth of an output as the graph gives it, rounded once to nearest."""
    truth, wanted = vector.truth[name], np.dtype(vector.dtypes[name])
    if wanted != STORAGE[dtype]:
        return truth.astype(wanted)  # indices
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(round_to(truth, DTYPES[dtype])).astype(wanted)


def _allowed(tolerance: Tolerance, vector: TestVector, name: str) -> F64:
    """Return the error that the limits allow in each element of an output, absolute; 0 where the truth is not finite."""
    truth = np.asarray(vector.truth[name], np.float64)
    fmt = tolerance.fmt
    with np.errstate(invalid="ignore", over="ignore"):
        if name in vector.bounds:
            error = tolerance.limit * np.broadcast_to(vector.bounds[name], truth.shape)
        elif tolerance.scale is None:
            error = tolerance.limit * _ulp(truth, tolerance)
        else:
            x = np.broadcast_to(vector.input_at[name], truth.shape).astype(np.float64)
            cotangent = np.ones_like(truth)
            if vector.cotangents is not None:
                cotangent = np.abs(np.broadcast_to(vector.cotangents["y"], truth.shape).astype(np.float64))
            scales = tolerance.scales(x) * cotangent
            size = np.maximum(np.maximum(np.abs(truth), scales), fmt.smallest_normal)
            error = tolerance.limit * fmt.unit_roundoff * size
            in_tail = (np.abs(truth) < scales / 8) & ~tolerance.near_root(x)
            tail = tolerance.tail_limit * tolerance.tail_condition(x) * _ulp(truth, tolerance) + tolerance.tail_lost(x)
            error = np.where(in_tail, np.minimum(error, tail), error)
            # A derivative that is a sum may meet an infinite cotangent with both signs, and be NaN.
            truth, error = np.where(np.isinf(cotangent), 0.0, truth), np.where(np.isinf(cotangent), np.inf, error)
    return np.where(np.isfinite(truth), error, 0.0)


def _allows_any(truth: F64, error: F64) -> bool:
    """Tell whether the limits allow any error, or one as large as a number of size 1 and more: then no rtol and atol serve all elements."""
    large = np.isfinite(truth) & (np.abs(truth) >= 1)
    return bool(np.isposinf(error).any() or (error[large] >= np.abs(truth[large])).any())


def _ulp(truth: F64, tolerance: Tolerance) -> F64:
    """Return at least one ULP of each number: two unit roundoffs of it, or of the smallest normal number."""
    fmt = tolerance.fmt
    ulp: F64 = 2.0 * fmt.unit_roundoff * np.maximum(np.abs(truth), fmt.smallest_normal)
    return ulp


def _widened(rtol: float, atol: float, truth: F64, error: F64, fmt: FloatFormat) -> tuple[float, float]:
    """Return tolerances under which |difference| <= atol + rtol |truth| holds where the limits allow the difference.

    What is stored is rounded, and off by half an ULP, which is added. Numbers of size 1 and more count for `rtol`, others for `atol`.
    """
    size = np.abs(truth)
    error = error + np.maximum(fmt.unit_roundoff * size, fmt.smallest_subnormal)
    large = np.isfinite(truth) & (size >= 1)
    small = np.isfinite(truth) & ~large
    with np.errstate(invalid="ignore"):
        rtol = max(rtol, float(np.max(error[large] / size[large], initial=0.0)))
    return rtol, max(atol, float(np.max(error[small], initial=0.0)))
