"""Blame accuses nobody without a witness: convention where both answers are defensible, framework where nothing else is there."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from msgspec import structs

from actconform.catalog.kernels import UNARY
from actconform.catalog.models.zoo import networks
from actconform.comparison.comparator import compare
from actconform.comparison.layerwise import LAYERS
from actconform.errors import Unsupported
from actconform.onnx.author.exporter import GRAPHS
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import io_names
from actconform.onnx.subgraph import extract_subgraph
from actconform.run.case import CaseContext, VectorCache, run_case
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.tolerance.ulp import to_hex
from actconform.types import (
    NOWHERE,
    Artifact,
    Blame,
    Case,
    Convention,
    Finding,
    FindingClass,
    Interval,
    Kernel,
    Verdict,
    Worst,
)
from actconform.types.cause import Register
from actconform.types.dtypes import DTYPES
from actconform.verdict.blame import blame, breach, by_drawing, by_optimizer
from actconform.workers.protocol import Failure, Job, JobResult

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = Kernel(name="k", definition="", source="")
GATED = Kernel(
    name="silu",
    definition="",
    source="",
    conventions=(Convention("value", (-math.inf,), "-inf * 0"), Convention("gradient", (0.0, math.inf), "a choice")),
)


AT_BOTH_ENDS = structs.replace(GATED, conventions=(Convention("value", (-math.inf, math.inf), "inf - inf"),))
WITH_ANSWERS = structs.replace(GATED, conventions=(Convention("value", (-math.inf,), "inf - inf", (math.nan,)),))


def finding(class_="inf", low=1.0, high=None, dtype="f32", evidence=""):
    ends = (
        NOWHERE if low is None else Interval(*(to_hex(x, DTYPES[dtype]) for x in (low, low if high is None else high)))
    )
    return Finding(
        class_=class_, count=1, regime="edge", tensor="y", interval=ends, worst=None, magnitude=0.0, evidence=evidence
    )


def case(aspect="value", dtype="f32", route="torch"):
    return Case("k", aspect, dtype, route)


def test_a_native_route_has_nobody_else_to_blame():
    blamed = blame(finding(evidence="seen twice"), PLAIN, case())
    assert blamed.blame == "framework"
    assert blamed.evidence == "seen twice"  # no number: truth is no witness of what a backend does
    number = Worst(input_hex="0x3f800000", index=0, truth=1.0, got=2.0, ulp=1e7, scaled=1e7)
    assert "torch" in blame(structs.replace(finding(), worst=number), PLAIN, case()).evidence


def test_a_graph_leaves_it_open_between_exporter_and_runtime():
    assert blame(finding(), PLAIN, case(route="authored+ort-cpu")) == finding()
    assert blame(finding(), PLAIN, case(route="torch-dynamo+ort-cpu")).blame == "undetermined"


@pytest.mark.parametrize("route", ["torch", "authored+ort-cpu"])
@pytest.mark.parametrize(
    ("kernel", "seen", "aspect"),
    [
        (Kernel(name="k", definition="", source="", defaults_only=True), finding("scaled-error"), "value"),
        (PLAIN, finding("zero-sign", 0.0), "value"),
        (Kernel(name="argmax", definition="", source="", output_dtype="int64"), finding("dtype", None), "value"),
        (GATED, finding("nan-made", -math.inf), "value"),
        (GATED, finding("kink", 0.0), "gradient"),
        (GATED, finding("kink", math.inf), "gradient"),
    ],
)
def test_where_both_answers_are_defensible_it_is_convention(kernel, seen, aspect, route):
    blamed = blame(seen, kernel, case(aspect, route=route))
    assert blamed.blame == "convention"
    assert blamed.evidence


@pytest.mark.parametrize(
    ("kernel", "seen", "aspect"),
    [
        (PLAIN, finding("dtype", None), "value"),
        (GATED, finding("nan-made", math.inf), "value"),
        (GATED, finding("nan-made", -math.inf), "gradient"),
        (GATED, finding("nan-made", -math.inf, 1.0), "value"),
        (GATED, finding("nan-made", math.nan), "value"),
        (GATED, finding("names", None), "value"),
        (AT_BOTH_ENDS, finding("nan-lost", -math.inf, math.inf), "value"),  # all numbers lie between
        (WITH_ANSWERS, finding("nan-lost", -math.inf), "value"),  # such an answer would be covered
    ],
)
def test_a_convention_holds_for_its_aspect_and_inputs_only(kernel, seen, aspect):
    assert blame(seen, kernel, case(aspect)).blame == "framework"


def test_patterns_are_read_in_the_format_of_the_case():
    assert blame(finding("nan-made", -math.inf, dtype="bf16"), GATED, case(dtype="bf16")).blame == "convention"
    assert blame(finding("nan-made", -math.inf, dtype="f16"), GATED, case(dtype="f16")).blame == "convention"


def test_the_finding_is_otherwise_left_as_it_was():
    seen = finding("zero-sign", 0.0)
    blamed = blame(seen, PLAIN, case())
    for field in ("class_", "count", "regime", "tensor", "interval", "worst", "magnitude", "deviation"):
        assert getattr(blamed, field) == getattr(seen, field)


class Heard:
    """Witnesses who say what they are told to."""

    def __init__(self, testimony: str, path: str = "composition: Sigmoid, Log") -> None:
        self.testimony, self.artifact = testimony, Artifact(b"", 20, path)

    def agreement(self, _: Finding) -> tuple[str, str]:
        return self.testimony, "" if self.testimony == "nothing" else f"they say {self.testimony}"


@pytest.mark.parametrize(
    ("exporter", "testimony", "path", "who"),
    [
        ("torch-dynamo", "wrong", "dynamo", "exporter"),
        ("torch-dynamo", "wrong", "operator: Gelu", "exporter"),
        ("authored", "wrong", "composition: Sigmoid, Log", "adapter"),
        ("authored", "wrong", "operator: Swish", "convention"),
        ("torch-dynamo", "right", "dynamo", "runtime"),
        ("authored", "right", "operator: Gelu", "runtime"),
        ("torch-dynamo", "disagree", "dynamo", "undetermined"),
        ("authored", "disagree", "operator: Gelu", "undetermined"),
        ("torch-dynamo", "absent", "dynamo", "undetermined"),
    ],
)
def test_witnesses_of_the_graph_decide(exporter: str, testimony: str, path: str, who: str) -> None:
    heard: Any = Heard(testimony, path)
    blamed = blame(finding(evidence="seen"), PLAIN, case(route=f"{exporter}+ort-cpu"), heard)
    assert blamed.blame == who
    assert blamed.evidence.startswith(f"seen; they say {testimony}")
    assert (path in blamed.evidence) == (who == "convention")


def test_a_convention_of_the_kernel_comes_before_the_witnesses() -> None:
    heard: Any = Heard("wrong")
    assert blame(finding("zero-sign", 0.0), PLAIN, case(route="torch-dynamo+ort-cpu"), heard).blame == "convention"


@pytest.mark.parametrize("class_", ["position-dependent", "nondeterministic", "mutates-input"])
def test_behaviour_on_a_graph_is_the_runtimes_without_a_witness(class_: str) -> None:
    heard: Any = Heard("wrong")
    for reevaluation in (heard, None):
        blamed = blame(finding(class_), PLAIN, case(route="torch-dynamo+ort-cpu"), reevaluation)
        assert blamed.blame == "runtime"
        assert blamed.evidence
    assert blame(finding(class_), PLAIN, case()).blame == "framework"


def test_a_breach_is_the_exporters() -> None:
    found = breach("static-shape", "x has 17, expected a dynamic dimension")
    assert (found.class_, found.blame, found.count) == ("static-shape", "exporter", 1)
    assert found.evidence == "x has 17, expected a dynamic dimension"
    assert found.worst is None


UNARIES = {kernel.name: kernel for kernel in UNARY}
FOLDER = golden_dir()
LEAKY = UNARIES["leaky-relu"]
TEST_VECTORS = generate(LEAKY, "value", "f32", load(FOLDER, read_manifest(FOLDER), "leaky-relu"))
TRUE = [{"y": vector.truth["y"].astype(np.float32)} for vector in TEST_VECTORS.vectors]
WRONG = [
    {"y": np.where((vector.inputs["x"] > 1) & (vector.inputs["x"] < 2), np.float32(9), answer["y"])}
    for vector, answer in zip(TEST_VECTORS.vectors, TRUE, strict=True)
]
FOUND = [
    structs.replace(found, blame="runtime", evidence="seen") for found in compare(TEST_VECTORS, WRONG)[1] if found.worst
]
LEVELS, OPTIMIZERS = ("disabled", "basic"), ("Folding", "Fusion", "Elimination")


def optimized(mending: set[str], refused: tuple[str, ...] = ()) -> tuple[list[Finding], list[str]]:
    asked: list[str] = []

    def answers(level: str) -> Any:
        asked.append(level)
        return None if level in refused else TRUE if level in mending else WRONG

    return by_optimizer(FOUND, TEST_VECTORS, LEVELS, OPTIMIZERS, answers), asked


def test_what_goes_without_one_optimizer_names_it() -> None:
    assert FOUND
    findings, asked = optimized({"disabled", "without Fusion"})
    assert {found.blame for found in findings} == {"runtime:optimizer"}
    assert {found.evidence for found in findings} == {"seen; gone at level disabled, and without Fusion alone"}
    assert set(asked) == {"disabled", "without Folding", "without Fusion"}


def test_what_no_single_optimizer_does_says_so() -> None:
    findings, _ = optimized({"disabled"}, refused=("without Folding",))
    assert {found.blame for found in findings} == {"runtime:optimizer"}
    assert all("no single optimizer" in found.evidence for found in findings)


@pytest.mark.parametrize("refused", [(), ("disabled",)])
def test_what_is_not_mended_without_optimization_stays_the_runtimes(refused: tuple[str, ...]) -> None:
    findings, asked = optimized({"without Fusion"}, refused)
    assert findings == FOUND
    assert asked == ["disabled"]


def test_a_runtime_without_levels_is_not_asked() -> None:
    assert by_optimizer(FOUND, TEST_VECTORS, (), OPTIMIZERS, pytest.fail) == FOUND


def test_what_is_not_the_runtimes_is_left_alone() -> None:
    others = [structs.replace(found, blame=who) for found in FOUND for who in ("exporter", "convention", "adapter")]
    assert by_optimizer(others, TEST_VECTORS, LEVELS, OPTIMIZERS, lambda _: TRUE) == others


class Faithful:
    """A runtime's worker that does just what the graph says."""

    def run(self, job: Job, timeout: float) -> JobResult:
        assert job.artifact is not None
        program = CorrectlyRoundedEvaluator(job.artifact.model)
        outputs = [program.forward(call.inputs) for call in job.calls]
        return JobResult(outputs=outputs, timings={"load": 0.0, "run": 0.0, "worker": 0.0})


def judged(case: Case, catalog: Any, vector_cache: Any, worker: Any, exports: Any = None) -> Any:
    """Return the result of a case with an empty register, run by a stand-in of a worker."""
    context = CaseContext(
        catalog=catalog,
        register=Register(),
        timeout=10.0,
        vector_cache=vector_cache,
        worker=worker,
        exports=exports,
        facts={},
    )
    return run_case(case, context)


def authored_case(kernel: Kernel, runtime: Any = None) -> Any:
    catalog: Any = SimpleNamespace(
        subject={kernel.name: kernel}.get,
        backends={"ort-cpu": SimpleNamespace(levels=LEVELS, optimizers=(), provider="", compiles_per_shape=False)},
        registered=lambda case: case,
        kernels={},
        worker=lambda case: case.worker,
    )
    vector_cache: Any = SimpleNamespace(generate=lambda *_: TEST_VECTORS)
    worker: Any = runtime or Faithful()
    return judged(Case(kernel.name, "value", "f32", "authored+ort-cpu"), catalog, vector_cache, worker)


def test_a_wrong_attribute_in_a_graph_of_ours_is_the_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert authored_case(LEAKY).verdict is Verdict.PASS
    monkeypatch.setitem(GRAPHS, "leaky-relu", lambda g, _: g.Neg(g.Neg(g.LeakyRelu("x", alpha=0.02))))
    result = authored_case(LEAKY)
    assert result.verdict is Verdict.FAIL
    assert {found.blame for found in result.findings if found.worst} == {"adapter"}
    assert all("correctly rounded" in found.evidence for found in result.findings if found.worst)


def test_a_wrong_attribute_in_a_single_operator_is_never_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRAPHS, "leaky-relu", lambda g, _: g.LeakyRelu("x", alpha=0.02))
    result = authored_case(LEAKY)
    assert result.verdict is Verdict.FAIL
    assert {found.blame for found in result.findings if found.worst} <= {"adapter", "convention"}


class Misshapen(Faithful):
    """One that leaves out the last element."""

    def run(self, job: Job, timeout: float) -> JobResult:
        outcome = super().run(job, timeout)
        outcome.outputs = [{name: array[:-1] for name, array in one.items()} for one in outcome.outputs]
        return outcome


def test_a_shape_is_blamed_on_who_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result = authored_case(LEAKY, Misshapen())
    assert {(found.class_, found.blame) for found in result.findings} == {("shape", "runtime")}
    monkeypatch.setitem(GRAPHS, "leaky-relu", lambda g, _: g.Unsqueeze(g.LeakyRelu("x", alpha=0.01), g.integers(0)))
    result = authored_case(LEAKY)
    assert {(found.class_, found.blame) for found in result.findings} == {("shape", "adapter")}


# The layers of a model: whose fault is the first that is off


HIDDEN = next(model for model in networks() if model.name == "regression-softmax-hidden")
FAULT = "first layer over its bound: norm2 ("


def injected(model: bytes, epsilon: float = 1e-3) -> bytes:
    """Return a graph with another epsilon in norm2, where it has that layer."""
    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        if node.name.startswith("norm2/"):
            next(one for one in node.attribute if one.name == "epsilon").f = epsilon
    return bytes(graph.SerializeToString())


class Runtime:
    """A runtime's worker that does what the graph says, to which `change` may do something before it is run."""

    def __init__(self, change: Callable[[bytes], bytes] = bytes) -> None:
        self.change = change
        self.ran: list[list[str]] = []

    def run(self, job: Job, timeout: float) -> JobResult:
        assert job.artifact is not None
        assert not job.intermediates
        outcome = JobResult(timings={"load": 0.0, "run": 0.0, "worker": 0.0})
        self.ran.append(io_names(job.artifact.model)[1])
        try:
            program = CorrectlyRoundedEvaluator(self.change(job.artifact.model))
        except Unsupported as error:
            outcome.failure = Failure("load", "unsupported", str(error))
            return outcome
        outcome.outputs = [program.forward(call.inputs) for call in job.calls]
        return outcome


class Tapped:
    """A framework's worker: a model of layers that it shows, one of which has another epsilon."""

    def __init__(self, epsilon: float, *, intermediates: bool = True) -> None:
        self.graph, self.intermediates = injected(author_model(HIDDEN, "f32").model, epsilon), intermediates

    def run(self, job: Job, timeout: float) -> JobResult:
        assert job.intermediates == (job.case.aspect == "value")
        answers = [dict(CorrectlyRoundedEvaluator(self.graph).forward(call.inputs)) for call in job.calls]
        outputs = [{name: array for name, array in each.items() if not name.startswith("layer.")} for each in answers]
        layers = {name.removeprefix("layer."): array for name, array in answers[0].items() if name.startswith("layer.")}
        timings = {"build": 0.0, "run": 0.0, "worker": 0.0}
        return JobResult(outputs=outputs, intermediates=layers if self.intermediates else None, timings=timings)


class Exported:
    """Gives a graph as exported: all layers, or as users ship it where constants are folded in."""

    def __init__(self, change: Callable[[bytes], bytes] = bytes) -> None:
        self.change = change

    def artifact(self, subject: Any, dtype: str, exporter: str, timeout: float, constants: Any = None) -> Artifact:
        model = self.change(author_model(subject, dtype).model)
        if constants is not None:
            whole = onnx.load_from_string(extract_subgraph(model, ["y"]))
            held = [value for value in whole.graph.input if value.name in constants]
            for value in held:
                whole.graph.input.remove(value)
                whole.graph.initializer.append(onnx.numpy_helper.from_array(constants[value.name], value.name))
            model = whole.SerializeToString()
        return Artifact(model, 24, "exported")


def model_case(route: str, worker: Any, exports: Any = None) -> Any:
    catalog: Any = SimpleNamespace(
        subject={HIDDEN.name: HIDDEN}.get,
        backends=dict.fromkeys(
            ("ort-cpu", "torch"), SimpleNamespace(levels=(), optimizers=(), provider="", compiles_per_shape=False)
        ),
        registered=lambda case: case,
        kernels={},
        worker=lambda case: case.worker,
    )
    vector_cache = VectorCache(golden_dir(), read_manifest(golden_dir()))
    return judged(Case(HIDDEN.name, "value", "f32", route), catalog, vector_cache, worker, exports)


def at_layers(result: Any) -> list[tuple[str, str]]:
    return [(found.tensor, found.blame) for found in result.findings if found.regime == LAYERS]


@pytest.mark.parametrize(
    ("route", "exports"),
    [("authored+ort-cpu", None), ("torch-dynamo+ort-cpu", Exported()), ("torch-dynamo@const+ort-cpu", Exported())],
)
def test_a_healthy_route_of_a_model_passes(route: str, exports: Any) -> None:
    runtime = Runtime()
    result = model_case(route, runtime, exports)
    assert (result.verdict, result.reason, result.findings) == (Verdict.PASS, "", ())
    seen = [one.tensor for one in result.measurements if one.regime == LAYERS]
    if "@const" in route:
        assert seen == []
        assert runtime.ran == [["y"]]
    else:
        assert seen == [layer.name for layer in HIDDEN.layers]
        assert runtime.ran == [["y", "loss"], *([f"layer.{name}"] for name in seen)]


def test_a_layer_that_is_wrong_in_the_exported_graph_is_the_exporters() -> None:
    result = model_case("torch-dynamo+ort-cpu", Runtime(), Exported(injected))
    assert result.verdict is Verdict.FAIL
    assert at_layers(result) == [("norm2", "exporter")]
    assert {found.blame for found in result.findings} == {"exporter"}
    assert result.blame == "exporter"
    assert FAULT in result.reason
    (layer,) = (found for found in result.findings if found.regime == "layers")
    assert "times its bound correctly rounded" in layer.evidence


def test_a_layer_that_is_wrong_in_a_graph_of_ours_is_the_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = structs.replace(author_model(HIDDEN, "f32"), model=injected(author_model(HIDDEN, "f32").model))
    monkeypatch.setattr("actconform.run.subject.author_model", lambda *_: wrong)
    result = model_case("authored+ort-cpu", Runtime())
    assert at_layers(result) == [("norm2", "adapter")]
    assert {found.blame for found in result.findings} == {"adapter"}
    assert FAULT in result.reason


@pytest.mark.parametrize(("route", "exports"), [("authored+ort-cpu", None), ("torch-dynamo+ort-cpu", Exported())])
def test_a_layer_that_is_right_in_the_graph_and_wrong_in_the_runtime_is_the_runtimes(route: str, exports: Any) -> None:
    result = model_case(route, Runtime(injected), exports)
    assert result.verdict is Verdict.FAIL
    assert at_layers(result) == [("norm2", "runtime")]
    assert {found.blame for found in result.findings} == {"runtime"}
    assert {found.tensor for found in result.findings} == {"norm2", "y", "loss"}
    assert FAULT in result.reason
    (layer,) = (found for found in result.findings if found.regime == "layers")
    assert layer.evidence.startswith("layer norm2 of the graph is within its bound correctly rounded")


def test_a_graph_that_holds_its_parameters_is_judged_end_to_end() -> None:
    for runtime, exports, who in (
        (Runtime(injected), Exported(), "runtime"),
        (Runtime(), Exported(injected), "exporter"),
    ):
        result = model_case("torch-dynamo@const+ort-cpu", runtime, exports)
        assert {(found.tensor, found.blame) for found in result.findings} == {("y", who)}
        assert "layer" not in result.reason


def test_a_layer_that_is_wrong_in_a_framework_is_the_frameworks() -> None:
    result = model_case("torch", Tapped(1e-3))
    assert at_layers(result) == [("norm2", "framework")]
    assert {found.blame for found in result.findings} == {"framework"}
    assert FAULT in result.reason
    assert model_case("torch", Tapped(1e-5)).verdict is Verdict.PASS


def test_a_framework_that_shows_no_layers_is_judged_end_to_end() -> None:
    result = model_case("torch", Tapped(1e-3, intermediates=False))
    assert {found.tensor for found in result.findings} == {"y", "loss"}
    assert "layer" not in result.reason
    assert model_case("torch", Tapped(1e-5, intermediates=False)).verdict is Verdict.PASS


def test_a_layer_that_the_runtime_refuses_alone_is_missing() -> None:
    def refusing(model: bytes) -> bytes:
        if io_names(model)[1] == ["layer.norm2"]:
            raise Unsupported("not implemented")
        return model

    result = model_case("authored+ort-cpu", Runtime(refusing))
    assert [(found.class_, found.tensor, found.blame) for found in result.findings] == [("names", "norm2", "runtime")]
    assert result.reason.endswith("first layer over its bound: norm2 (names)")


def test_what_a_graph_that_draws_gives_is_its_exporters():
    drawing = breach(FindingClass.NONDETERMINISTIC, "it draws")
    twice = structs.replace(drawing, blame=Blame.RUNTIME, evidence="seen in 1 call")
    lost = structs.replace(drawing, class_=FindingClass.SCALED_ERROR, blame=Blame.UNDETERMINED)
    wrong = structs.replace(lost, blame=Blame.RUNTIME)
    assert [by_drawing(finding, [drawing]).blame for finding in (twice, lost, wrong)] == [
        "exporter",
        "exporter",
        "runtime",
    ]
    assert by_drawing(twice, [drawing]).evidence == "seen in 1 call; it draws"
    assert by_drawing(twice, [wrong]) == by_drawing(twice, []) == twice
