"""Where nodes run, from assignments that ONNX Runtime made for CUDA (recorded_assignments.json), down the whole line.

They are what its CUDA provider takes and leaves; answers come from the CPU here, which is not what is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
from onnx import parser

from actconform import Artifact, Case, Kernel, Unavailable
from actconform.catalog.kernels import ROWS, UNARY
from actconform.onnx.author.exporter import author
from actconform.onnx.gradient_artifact import vjp_artifact
from actconform.plugin.loader import load_plugins
from actconform.run.case import CaseContext, VectorCache, run_case
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Result, Verdict
from actconform.types.cause import Register
from actconform.workers.session import Session
from actconform_onnxruntime import cuda, session
from actconform_onnxruntime.backend import OrtCpu, OrtCuda
from actconform_onnxruntime.placement import placed, shape_nodes
from actconform_onnxruntime.program import GraphProgram

if TYPE_CHECKING:
    from actconform.workers.protocol import Job, JobResult

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
RECORDED = json.loads(Path(__file__).with_name("recorded_assignments.json").read_bytes())["assigned"]


def part(provider: str, *nodes: tuple[str, str]) -> SimpleNamespace:
    told = [SimpleNamespace(name=name, op_type=operator, domain="") for name, operator in nodes]
    return SimpleNamespace(ep_name=f"{provider}ExecutionProvider", get_nodes=lambda: told)


class OnCuda:
    """A session that says it is on CUDA, with its nodes where they were recorded, and computes on the CPU."""

    def __init__(self, model: bytes, assigned: list[Any], providers: tuple[str, ...] = (CUDA, CPU)) -> None:
        self._on_cpu = onnxruntime.InferenceSession(model, providers=[CPU])
        self._assigned, self._providers = assigned, list(providers)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return [part(provider, *map(tuple, nodes)) for provider, nodes in self._assigned]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._on_cpu, name)


def program(case: str) -> GraphProgram:
    kernel, aspect, dtype = case.split("/")
    graph = author(KERNELS[kernel], dtype)
    graph = vjp_artifact(graph, KERNELS[kernel]) if aspect == "gradient" else graph
    return GraphProgram(OnCuda(graph.model, RECORDED[case]), graph, CUDA)


def down_the_line(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, session_of: Any) -> Result:
    """Return the result of the kernel's values in f32 on authored+ort-cuda, the backend at work in this process."""
    monkeypatch.setattr(session, "load", lambda model, _: session_of(model))
    catalog = load_plugins()
    worker = Session(OrtCuda(), catalog)

    class Here:
        def run(self, job: Job, _: float) -> JobResult:
            return worker.run(job)

    folder = golden_dir()
    vector_cache = VectorCache(folder, read_manifest(folder))
    context = CaseContext(catalog, Register(), 60.0, vector_cache, Here(), None, {})  # type: ignore[arg-type]
    return run_case(Case(kernel.name, "value", "f32", "authored+ort-cuda"), context)


def test_a_graph_that_cuda_takes_whole_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    result = down_the_line(KERNELS["relu"], monkeypatch, lambda model: OnCuda(model, RECORDED["relu/value/f32"]))
    assert result.measurements
    assert "placement" not in {finding.class_ for finding in result.findings}
    assert result.placement == {CUDA: ("Relu",)}


def test_one_operator_that_cuda_lacks_is_a_placement_finding_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result = down_the_line(KERNELS["elu"], monkeypatch, lambda model: OnCuda(model, RECORDED["elu/value/f32"]))
    (found,) = [finding for finding in result.findings if finding.class_ == "placement"]
    assert found.evidence.startswith(f"Elu on {CPU}: asked for {CUDA}")
    assert found.blame == "runtime"
    assert result.verdict is Verdict.FAIL
    assert result.placement == {CPU: ("Elu",)}


def test_a_session_that_fell_back_as_a_whole_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "device_facts", lambda: {"device": "NVIDIA Fake"})
    fallen = lambda model: OnCuda(model, RECORDED["elu/value/f32"], (CPU,))  # noqa: E731
    result = down_the_line(KERNELS["elu"], monkeypatch, fallen)
    assert result.verdict is Verdict.UNAVAILABLE
    assert result.reason == f"asked for {CUDA}, ONNX Runtime made a session on {CPU} and does not say why"


def test_the_cause_of_falling_back_is_told_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> dict[str, str]:
        raise Unavailable("no NVIDIA driver: libcuda.so.1 missing")

    monkeypatch.setattr(cuda, "device_facts", no_driver)
    result = down_the_line(KERNELS["relu"], monkeypatch, lambda model: OnCuda(model, [], (CPU,)))
    assert (result.verdict, result.reason) == (Verdict.UNAVAILABLE, "no NVIDIA driver: libcuda.so.1 missing")


@pytest.mark.parametrize(
    ("case", "shapes"),
    [("sparsemax/value/f32", "Squeeze, Add"), ("glu/gradient/f32", "Concat, Equal, Not, NonZero, Reshape")],
)
def test_work_on_shapes_that_cuda_leaves_to_the_cpu_is_told_and_is_no_finding(case: str, shapes: str) -> None:
    loaded = program(case)
    assert list(loaded.placement) == [CUDA]
    assert loaded.implementation.endswith(f"; shapes on the CPU: {shapes}")


def test_functions_are_placed_by_the_nodes_that_they_expand_to() -> None:
    assert program("mish/value/f32").placement == {CUDA: ("Softplus", "Tanh", "Mul")}


def test_an_operator_may_be_in_two_places() -> None:
    graph = author(KERNELS["relu"], "f32")
    split = OnCuda(graph.model, [["CUDA", [["a", "Mul"], ["b", "Exp"]]], ["CPU", [["c", "Mul"]]]])
    assert placed(split, graph.model, CUDA).computed == {CUDA: ("Mul", "Exp"), CPU: ("Mul",)}


def test_on_the_cpu_everything_is_where_it_should_be() -> None:
    loaded = OrtCpu().load(author(KERNELS["sparsemax"], "f32"), "f32")
    assert list(loaded.placement) == [CPU]
    assert "shapes on the CPU" not in loaded.implementation


class WithoutRecord:
    """A session of a release before 1.24."""

    def __init__(self, *providers: str) -> None:
        self.get_providers = lambda: list(providers)


def test_without_a_record_a_session_of_one_provider_has_all_nodes_there() -> None:
    graph = author(KERNELS["mish"], "f32")
    assert placed(WithoutRecord(CPU), graph.model, CPU) == ({CPU: ()}, ())


@pytest.mark.parametrize("providers", [(CUDA, CPU), (CPU,)])
def test_without_a_record_nothing_is_claimed_of_several_providers(providers: tuple[str, ...]) -> None:
    with pytest.raises(Unavailable, match=r"take 1\.24 or newer"):
        placed(WithoutRecord(*providers), author(KERNELS["mish"], "f32").model, CUDA)


HEAD = '<ir_version: 10, opset_import: ["" : 20]> g (float[a,b] x, int64[1] i) => (float[c] y) <int64[1] k = {0}>'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[s] s = Shape(x) [g] d = Gather(s, k) [c] t = Concat<axis: int = 0>(d, d) [r] y = Reshape(x, t)", "sgc"),
        ("[s] s = Shape(x) [g] d = Gather(s, i) [r] y = Reshape(x, d)", "s"),  # which one is data
        ("[s] s = Shape(x) [c] z = ConstantOfShape(s) [m] y = Mul(x, z)", "s"),  # as large as x
        (
            "[s] s = Shape(x) [q] r = Shape(s) [c] z = ConstantOfShape(r) [g] t = Add(s, z) [r] y = Reshape(x, t)",
            "sqcg",
        ),
        ("[n] n = Size(x) [f] f = Cast<to: int = 1>(n) [v] v = Reciprocal(f) [m] y = Mul(x, v)", "nfv"),
        ("[f] y = Floor(x)", ""),
        ("[a] a = Add(k, k) [s] s = Shape(x) [g] d = Gather(s, a) [r] y = Reshape(x, d)", "sg"),  # a constant, unfolded
        ("s = Shape(x) d = Gather(s, k) y = Gather(x, d)", "*"),  # nameless: one Gather computes
    ],
)
def test_what_depends_on_nothing_but_shapes(body: str, expected: str) -> None:
    model = parser.parse_model(f"{HEAD} {{ {body} }}").SerializeToString()
    if expected == "*":
        assert shape_nodes(model) == {("", "Shape")}
    else:
        assert {name for name, _ in shape_nodes(model)} == set(expected)


def test_a_shape_operator_inside_a_function_is_known_without_the_graph() -> None:
    graph = author(KERNELS["relu"], "f32")
    split = OnCuda(graph.model, [["CUDA", [["Relu_0", "Relu"]]], ["CPU", [["", "Shape"]]]])
    assert placed(split, graph.model, CUDA) == ({CUDA: ("Relu",)}, ("Shape",))


def test_an_artifact_without_nodes_on_the_cpu_is_not_parsed() -> None:
    graph = author(KERNELS["relu"], "f32")
    loaded = GraphProgram(
        OnCuda(graph.model, RECORDED["relu/value/f32"]), Artifact(b"no graph", 24, "operator: Relu"), CUDA
    )
    assert loaded.placement == {CUDA: ("Relu",)}
    assert loaded.implementation == "operator: Relu"
