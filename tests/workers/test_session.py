"""The work of a worker on models: built, tapped and exported, and whatever goes wrong there costs one job."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from actconform import Artifact, Backend, Exporter, Kernel, Program, Unsupported, hookimpl
from actconform.catalog.models.builder import describe, layer
from actconform.oracle.layers.model import gradients, values
from actconform.plugin.loader import load_plugins
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types import Case
from actconform.types.model import LOSS, OUTPUT, Input
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, ExportJob, Job
from actconform.workers.session import Session, fault_message

if TYPE_CHECKING:
    from actconform import Model

HERE = Path(__file__).parent
X = Input(name="x", shape=(3,), draw="normal")
TARGET = Input(name="target", shape=(2,), draw="normal", role="target")
LAYERS = [
    layer("dense", "dense", "x", units=2),
    layer("y-of-it", "activation", "dense", kernel="tanh"),
    layer(LOSS, "mean-squared-error", "y-of-it", "target"),
]


def named(name: str) -> Model:
    return describe(name, "tests", [X, TARGET], LAYERS, output="y-of-it", batch=4)


TINY = named("tiny")
TENSORS = {**draw_inputs(TINY), **draw_parameters(TINY)}


class Oracle(Program):
    """The truth, rounded once, in whatever a model's program is asked for."""

    implementation = "layers of numpy"

    def __init__(self, model: Model) -> None:
        self.model, self.closed = model, False

    def layers(self, inputs: Any) -> Any:
        return {name: value.astype(np.float32) for name, value in values(self.model, inputs).items()}

    def forward(self, inputs: Any) -> Any:
        layers = self.layers(inputs)
        return {OUTPUT: layers[self.model.output], LOSS: layers[LOSS]}

    def vjp(self, inputs: Any, cotangents: Any) -> Any:
        found = gradients(self.model, inputs, values(self.model, inputs))
        return {f"d_{name}": (cotangents[LOSS] * array).astype(np.float32) for name, array in found.items()}

    def close(self) -> None:
        self.closed = True


class Tapped(Oracle):
    def intermediates(self, inputs: Any) -> Any:
        shown = self.layers(inputs)
        inputs["x"][...] = 9.0  # what it does to its inputs is nobody else's matter
        return shown


class Faulty(Oracle):
    TAPS: ClassVar[dict[str, Any]] = {
        "faulty": lambda inputs: {"dense": 1 // 0},
        "list": lambda inputs: [inputs["x"]],
        "lists": lambda inputs: {"dense": [1.0]},
        "objects": lambda inputs: {"dense": np.array([None])},
        "no-memory": lambda inputs: (_ for _ in ()).throw(MemoryError("16 GiB wanted")),
    }

    def intermediates(self, inputs: Any) -> Any:
        return self.TAPS[self.model.name](inputs)


class Framework(Backend):
    name = "numpy"
    kind = "framework"
    built: ClassVar[list[Oracle]] = []

    def facts(self) -> dict[str, str]:
        return {}

    def build(self, kernel: Kernel, dtype: str) -> Program:
        raise AssertionError("a model is no kernel")

    def build_model(self, model: Model, dtype: str) -> Program:
        assert dtype == "f32"
        if model.name == "no-program":
            return model  # type: ignore[return-value]
        program = {"tiny": Tapped, "tapless": Oracle}.get(model.name, Faulty)(model)
        self.built.append(program)
        return program


class KernelsOnly(Backend):
    name = "kernels-only"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {}


class ToText(Exporter):
    name = "to-text"
    source = "numpy"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return Artifact(b"a kernel", 20, "written")

    def export_model(self, model: Model, dtype: str, constants: Any) -> Artifact:
        if model.name == "faulty":
            raise Unsupported("no symbol for it")
        return Artifact(f"{model.name} in {dtype} with {sorted(constants or {})}".encode(), 20, "written")


class OfKernels(Exporter):
    name = "of-kernels"
    source = "numpy"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return Artifact(b"a kernel", 20, "written")


class Plugin:
    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        return [Kernel(name="cube", definition="", source="")]

    @hookimpl
    def actconform_models(self) -> list[Model]:
        return [TINY, *(named(name) for name in ("tapless", "no-program", *Faulty.TAPS))]

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Framework, KernelsOnly]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [ToText, OfKernels]


CATALOG = load_plugins([Plugin()], entry_points=[])
SESSION = Session(Framework(), CATALOG)


def job(name: str, aspect: Any = "value", *, intermediates: bool = True) -> Job:
    cotangents = {LOSS: np.ones((), np.float32)} if aspect == "gradient" else None
    return Job(
        Case(name, aspect, "f32", "numpy"), None, [Call("ordinary", TENSORS, cotangents)], intermediates=intermediates
    )


# Built and tapped


def test_a_model_is_built_called_and_tapped() -> None:
    outcome = SESSION.run(job("tiny"))
    assert outcome.failure is None
    assert outcome.implementation == "layers of numpy"
    truth = values(TINY, TENSORS)
    assert outcome.outputs[0].keys() == {OUTPUT, LOSS}
    np.testing.assert_allclose(outcome.outputs[0][OUTPUT], truth["y-of-it"], rtol=1e-6)
    assert list(outcome.intermediates) == ["dense", "y-of-it", LOSS]
    for name, value in truth.items():
        np.testing.assert_allclose(outcome.intermediates[name], value, rtol=1e-6)
    assert (outcome.mutated, outcome.unsteady) == ([], [])
    assert {"build", "run", "worker"} == outcome.timings.keys()
    assert Framework.built[-1].closed
    assert not (TENSORS["x"] == 9.0).any()


def test_intermediates_are_shown_only_where_they_are_asked_for() -> None:
    assert SESSION.run(job("tiny", intermediates=False)).intermediates is None
    assert SESSION.run(job("faulty", intermediates=False)).failure is None


def test_gradients_of_a_model_are_of_its_loss() -> None:
    outcome = SESSION.run(job("tiny", "gradient", intermediates=False))
    assert outcome.failure is None
    wanted = gradients(TINY, TENSORS, values(TINY, TENSORS))
    assert outcome.outputs[0].keys() == {"d_x", "d_dense.kernel", "d_dense.bias"}
    for name, array in wanted.items():
        np.testing.assert_allclose(outcome.outputs[0][f"d_{name}"], array, rtol=1e-6)


def test_what_is_raised_ends_a_call_alone_that_may_be_refused() -> None:
    asked = job("tiny", intermediates=False)
    nothing: dict[str, Any] = {}
    outcome = SESSION.run(
        Job(
            asked.case,
            None,
            [*asked.calls, Call("shapes", nothing, may_refuse=True), *asked.calls],
            repeated=(0, 1, 2),
        )
    )
    assert outcome.failure is None
    assert outcome.refused.keys() == {1}
    assert "KeyError" in outcome.refused[1]
    assert [sorted(bundle) for bundle in outcome.outputs] == [[LOSS, OUTPUT], [], [LOSS, OUTPUT]]
    assert outcome.unsteady == []
    stopped = SESSION.run(Job(asked.case, None, [*asked.calls, Call("ordinary", nothing)]))
    assert stopped.failure is not None
    assert stopped.failure.call == 1


def test_a_program_without_intermediates_has_none_and_the_job_succeeds() -> None:
    outcome = SESSION.run(job("tapless"))
    assert outcome.failure is None
    assert outcome.outputs[0].keys() == {OUTPUT, LOSS}
    assert outcome.intermediates is None


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("faulty", "error", "ZeroDivisionError: "),
        ("list", "error", "intermediates returned a list: wanted a dict of output name to numpy array"),
        ("lists", "error", "intermediates returned a list as 'dense': wanted a dict"),
        ("objects", "error", "dtype object cannot be sent"),
        ("no-memory", "memory", "MemoryError: 16 GiB wanted"),
    ],
)
def test_faulty_intermediates_are_a_failure_that_is_named(name: str, kind: str, words: str) -> None:
    outcome = SESSION.run(job(name))
    assert outcome.failure is not None
    assert (outcome.failure.stage, outcome.failure.kind, outcome.failure.call) == ("run", kind, 0)
    assert words in outcome.failure.message
    assert outcome.intermediates is None
    assert len(outcome.outputs) == 1  # what was computed before is kept
    assert Framework.built[-1].closed


def test_what_is_no_program_or_no_subject_is_named() -> None:
    failure = SESSION.run(job("no-program")).failure
    assert failure is not None
    assert (failure.stage, failure.kind) == ("build", "error")
    assert "build returned a actconform.types.model.Model: wanted an actconform.Program" in failure.message
    failure = SESSION.run(job("nobody-knows")).failure
    assert failure is not None
    assert "the numpy worker knows no kernel or model 'nobody-knows'" in failure.message


def test_a_backend_of_kernels_alone_says_that_it_builds_no_models() -> None:
    failure = Session(KernelsOnly(), CATALOG).run(job("tiny")).failure
    assert failure is not None
    assert (failure.stage, failure.kind) == ("build", "unsupported")
    assert failure.message == "kernels-only builds no models"


# Exported


@pytest.mark.parametrize(
    ("constants", "words"), [(None, "tiny in f32 with []"), ({"a": np.ones(2)}, "tiny in f32 with ['a']")]
)
def test_a_model_is_exported_as_one_with_its_constants(constants: Any, words: str) -> None:
    outcome = SESSION.export(ExportJob("to-text", "tiny", "f32", constants))
    assert outcome.failure is None
    assert outcome.artifact is not None
    assert outcome.artifact.model.decode() == words
    kernel = SESSION.export(ExportJob("to-text", "cube", "f32"))
    assert kernel.artifact is not None
    assert kernel.artifact.model == b"a kernel"


@pytest.mark.parametrize(
    ("exporter", "name", "words"),
    [("to-text", "faulty", "no symbol for it"), ("of-kernels", "tiny", "of-kernels exports no models")],
)
def test_an_exporter_that_refuses_a_model_is_unsupported_in_its_words(exporter: str, name: str, words: str) -> None:
    failure = SESSION.export(ExportJob(exporter, name, "f32")).failure
    assert failure is not None
    assert (failure.stage, failure.kind, failure.message) == ("export", "unsupported", words)


# Over the wire: fake.py has a model, a program that shows its layers, and an exporter that tells what it was given


@pytest.fixture(scope="module")
def worker() -> Any:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with Worker("fake", plugins=("fake:Plugin",), env={"PYTHONPATH": path}) as one:
        yield one


def test_intermediates_cross_the_wire(worker: Worker) -> None:
    x = np.float32([[1, 2], [3, -4]])
    given = {"x": x, "target": np.zeros_like(x)}
    outcome = worker.run(
        Job(Case("doubled", "value", "f32", "fake"), None, [Call("ordinary", given)], intermediates=True), 20
    )
    assert outcome.failure is None
    assert list(outcome.intermediates) == ["twice", "loss"]
    np.testing.assert_array_equal(outcome.intermediates["twice"], 2 * x)
    assert outcome.intermediates["loss"].shape == ()
    assert outcome.intermediates["twice"].flags.writeable
    untapped = worker.run(Job(Case("doubled", "value", "f32", "fake"), None, [Call("ordinary", given)]), 20)
    assert untapped.intermediates is None


def test_constants_cross_the_wire_with_every_bit(worker: Worker) -> None:
    constants = {
        "conv.kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1],
        "odd": np.array([-0.0, 1e-45, np.inf], np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    outcome = worker.export(ExportJob("fake-exporter", "doubled", "f32", constants), 20)
    assert outcome.failure is None
    assert outcome.artifact is not None
    told = json.loads(outcome.artifact.model)
    assert told == {
        name: [str(array.dtype), list(array.shape), array.tobytes().hex()] for name, array in constants.items()
    }
    none = worker.export(ExportJob("fake-exporter", "doubled", "f32"), 20)
    assert none.artifact is not None
    assert none.artifact.model == b"null"


def test_words_that_cannot_be_encoded_are_written_out() -> None:
    assert fault_message(RuntimeError("a\ud800")) == "RuntimeError: a\\ud800"
    assert fault_message(Unsupported("b\udfff")) == "b\\udfff"
