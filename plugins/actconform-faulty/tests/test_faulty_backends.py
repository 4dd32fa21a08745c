"""The backends and the exporter that hold the faults: healthy without one, and with one other answers to the same questions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform import Case, Model, Unsupported
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import inspect
from actconform.onnx.gradient_artifact import vjp_artifact, with_cotangents
from actconform.plugin.loader import load_plugins
from actconform.run.case import VectorCache
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.workers.protocol import Call
from actconform_faulty import FaultyExport, FaultyOrt, FaultyTorch
from actconform_faulty.injected import INJECTED
from actconform_onnxruntime.backend import OrtCpu
from actconform_torch.backend import TorchBackend
from actconform_torch.exporters import TorchDynamo

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Artifact, Backend, Kernel, Program
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Bundle

CATALOG = load_plugins()
VECTOR_CACHE = VectorCache(golden_dir(), read_manifest(golden_dir()))
NEVER_CALLED_HERE = {"segfault", "abort", "leaves", "hang"}  # they end the process that asks them, or never answer it

NATIVE = [
    ("definition", "gelu-erf-as-tanh softmax-axis prelu-shared-slope thresholded-relu-inclusive"),
    ("precision", "softplus-naive relu-one-ulp sigmoid-bias softplus-through-bf16 dense-tf32"),
    ("special", "relu-nan-to-zero tanh-zero-to-plus silu-flushes softmax-masked-row relu-tail-loses-nan"),
    ("structure", "outputs-swapped output-transposed output-f64 tail-left element-17 last-row-missing extra-output"),
    ("gradients", "relu-kink tanh-ignores-cotangent prelu-one-row max-tie-by-bf16 query-transposed"),
    ("layers", "layer-norm-epsilon-1e-3 batch-norm-unbiased dropout-mask-reused attention-causal link-direction"),
    ("behaviour", "input-written noise right-once odd-length"),
]
IN_GRAPHS = [
    ("structure", "batch-fixed output-renamed"),
    ("gradients", "relu-straight-through stack-times-batch"),
    ("optimization", "softmax-axis clip-bounds gelu-to-tanh scale-dropped"),
    ("behaviour", "noise odd-length"),
]
EXPORTED = ["constant-in-f16", "gelu-as-tanh", "relu-as-leaky-relu"]
REFUSED = ["output-misdeclared", "output-cast", "foreign-operator"]


def each(rooms: list[tuple[str, str]]) -> list[Any]:
    return [pytest.param(name, id=f"{room}-{name}") for room, names in rooms for name in names.split()]


def asked(full: str) -> tuple[Kernel | Model, TestVectors, Case]:
    """Return what the fault's first case is of, and asks."""
    subject, aspect, dtype, route = INJECTED[full].fault.cases[0].split("/")
    case = Case(subject, aspect, dtype, route)  # type: ignore[arg-type]
    one = CATALOG.subject(subject)
    return one, VECTOR_CACHE.generate(one, case), case


def built(backend: Backend, subject: Kernel | Model, dtype: str) -> Program:
    return (backend.build_model if isinstance(subject, Model) else backend.build)(subject, dtype)  # type: ignore[operator]


def graph(subject: Kernel | Model, case: Case) -> Artifact:
    whole = author_model(subject, case.dtype) if isinstance(subject, Model) else author(subject, case.dtype)
    return vjp_artifact(whole, subject) if case.aspect == "gradient" else whole


def natively(program: Program, test_vectors: TestVectors) -> list[Bundle]:
    """Return all answers, and the inputs as they are left."""
    told: list[Bundle] = []
    for vector in test_vectors.vectors:
        inputs = {name: array.copy() for name, array in vector.inputs.items()}
        cotangents = vector.cotangents
        told += [program.forward(inputs) if cotangents is None else program.vjp(inputs, cotangents), inputs]
    return told


def by_graph(program: Program, test_vectors: TestVectors) -> list[Bundle]:
    calls = [Call(one.regime, with_cotangents(one.inputs, one.cotangents)) for one in test_vectors.vectors]
    return [program.forward(call.inputs) for call in calls]


def same(one: list[Bundle], other: list[Bundle]) -> bool:
    """Tell whether names, dtypes, shapes and bits are the same, call by call."""

    def told(bundle: Bundle) -> dict[str, Any]:
        arrays = {name: np.asarray(array) for name, array in bundle.items()}
        return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}

    return [told(bundle) for bundle in one] == [told(bundle) for bundle in other]


@pytest.mark.parametrize("full", ["faulty-torch@sigmoid-bias", "faulty-torch@relu-kink", "faulty-torch@dense-tf32"])
def test_without_a_fault_the_backend_answers_as_the_healthy_one(full: str) -> None:
    subject, test_vectors, case = asked(full)
    healthy = natively(built(TorchBackend(), subject, case.dtype), test_vectors)
    assert same(natively(built(FaultyTorch(), subject, case.dtype), test_vectors), healthy)


@pytest.mark.parametrize("full", ["faulty-ort@batch-fixed", "faulty-ort@relu-straight-through"])
def test_without_a_fault_the_runtime_answers_as_the_healthy_one(full: str) -> None:
    subject, test_vectors, case = asked(full)
    artifact = graph(subject, case)
    healthy = by_graph(OrtCpu().load(artifact, case.dtype), test_vectors)
    assert same(by_graph(FaultyOrt().load(artifact, case.dtype), test_vectors), healthy)


@pytest.mark.parametrize("name", each(NATIVE))
def test_a_fault_of_a_framework_changes_what_is_answered(name: str) -> None:
    subject, test_vectors, case = asked(f"faulty-torch@{name}")
    healthy, faulty = TorchBackend(), FaultyTorch().variant(name)
    answers = natively(built(healthy, subject, case.dtype), test_vectors)
    assert same(natively(built(healthy, subject, case.dtype), test_vectors), answers)
    program = built(faulty, subject, case.dtype)
    assert not same([*natively(program, test_vectors), *natively(program, test_vectors)], [*answers, *answers])


@pytest.mark.parametrize("name", each(IN_GRAPHS))
def test_a_fault_of_a_runtime_changes_what_is_answered(name: str) -> None:
    subject, test_vectors, case = asked(f"faulty-ort@{name}")
    artifact = graph(subject, case)
    answers = by_graph(OrtCpu().load(artifact, case.dtype), test_vectors)
    assert not same(by_graph(FaultyOrt().variant(name).load(artifact, case.dtype), test_vectors), answers)


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel, str], Artifact]:
    """Return torch-dynamo's own export, which is asked for each kernel once."""
    monkeypatch.setattr(TorchDynamo, "export", lambda _, kernel, dtype: exported(kernel.name, dtype))
    return TorchDynamo().export


@lru_cache
def exported(name: str, dtype: str, export: Callable[..., Artifact] = TorchDynamo.export) -> Artifact:
    return export(TorchDynamo(), CATALOG.kernels[name], dtype)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_fault_of_an_exporter_changes_what_the_graph_says(name: str, export: Callable[..., Artifact]) -> None:
    subject, test_vectors, case = asked(f"faulty-export@{name}")
    assert not isinstance(subject, Model)
    healthy = export(subject, case.dtype)
    assert FaultyExport().export(subject, case.dtype) == healthy
    faulty = FaultyExport().variant(name).export(subject, case.dtype)
    assert inspect(faulty, subject, case.dtype) == []
    ideal = by_graph(CorrectlyRoundedEvaluator(healthy.model), test_vectors)
    assert not same(by_graph(CorrectlyRoundedEvaluator(faulty.model), test_vectors), ideal)


@pytest.mark.usefixtures("export")
@pytest.mark.parametrize("name", REFUSED)
def test_some_faults_of_an_exporter_are_seen_before_anything_runs(name: str) -> None:
    subject, _, case = asked(f"faulty-export@{name}")
    assert not isinstance(subject, Model)
    found = inspect(FaultyExport().variant(name).export(subject, case.dtype), subject, case.dtype)
    assert found[0][0] in INJECTED[f"faulty-export@{name}"].fault.findings


@pytest.mark.parametrize("name", sorted(NEVER_CALLED_HERE))
def test_what_ends_a_process_harms_nobody_until_it_is_called(name: str) -> None:
    full = f"faulty-torch@{name}"
    subject, _, case = asked(full)
    assert built(FaultyTorch().variant(name), subject, case.dtype)
    assert INJECTED[full].fault.verdict in ("CRASH", "TIMEOUT")


@pytest.mark.parametrize(("name", "error"), [("raises", RuntimeError), ("no-memory", MemoryError)])
def test_an_injected_exception_is_raised(name: str, error: type[Exception]) -> None:
    subject, test_vectors, case = asked(f"faulty-torch@{name}")
    with pytest.raises(error):
        natively(built(FaultyTorch().variant(name), subject, case.dtype), test_vectors)


@pytest.mark.parametrize("holder", [FaultyTorch, FaultyOrt, FaultyExport])
def test_a_fault_that_there_is_not_is_refused_by_name(holder: Any) -> None:
    with pytest.raises(Unsupported, match=f"no fault is called {holder.name}@typo"):
        holder().variant("typo")


def test_facts_are_those_of_the_backend_that_it_stands_for() -> None:
    assert FaultyTorch().variant("noise").facts() == TorchBackend().facts()
    assert FaultyTorch.stands_for == TorchBackend.name
    assert FaultyOrt.stands_for == OrtCpu.name
    assert FaultyExport.stands_for == TorchDynamo.name
