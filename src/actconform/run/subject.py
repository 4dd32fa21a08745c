"""What the line asks of a subject, whether it is a kernel or a model: its test vectors, its graphs, and what of a graph is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from actconform.comparison.layerwise import layerwise, locate_layer, top_1
from actconform.comparison.running_statistics import compare_statistics, has_statistics
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.gates import inspect, inspect_model, io_names
from actconform.onnx.gradient_artifact import vjp_artifact, with_cotangents
from actconform.run.graph_findings import drawing_findings, of_model
from actconform.run.layer_values import call_with_inputs_of, layer_values, subgraph_to
from actconform.testdata.kernel_vectors import generate
from actconform.testdata.memory_vectors import with_layouts
from actconform.testdata.model_tensors import draw_parameters
from actconform.testdata.model_vectors import generate_model
from actconform.testdata.sizes import with_sizes
from actconform.types import Blame
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT, Model
from actconform.verdict.blame import blame
from actconform.verdict.causes.explain import CONVENTION, Coverage, Explainer, Explanation, plainly
from actconform.verdict.reevaluate import LayerReevaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.comparison.comparator import Comparison
    from actconform.onnx.gates import Breach
    from actconform.testdata.golden.store import Golden
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Artifact, Aspect, Bundle, Case, Finding, Kernel, Measurement
    from actconform.verdict.causes.explain import Situation
    from actconform.workers.protocol import Call, Job, JobResult


class LayerRun(NamedTuple):
    """What the values of layers are taken from: the native program's own intermediates, or parts of the graph run one by one."""

    graph: Artifact | None
    job: Job
    inputs: Bundle
    intermediates: Bundle | None
    statistics: Bundle | None
    run: Callable[[Job], JobResult]


class Subject(Protocol):
    """A kernel or a model on the line."""

    layered: bool
    """Whether it has layers, whose values are compared too."""
    trained: bool
    """Whether a call leaves running statistics, which are compared too."""

    def vectors(self, case: Case, golden: Golden) -> TestVectors:
        """Return the test vectors of a case. Raises Unsupported where there are none."""

    def author(self, dtype: str) -> Artifact:
        """Return the graph that we write."""

    def constants(self, case: Case) -> Bundle | None:
        """Return the parameters that an exporter folds into the graph of a case; None where they stay inputs."""

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        """Return how a graph breaks what the graph of this case must be."""

    def graph_findings(self, artifact: Artifact, case: Case) -> list[Finding]:
        """Return what an exported graph shows without being run, though a runtime takes it."""

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:
        """Return what of a graph is run for an aspect: of a gradient the vector-Jacobian products, else the `outputs`."""

    def call_for(self, call: Call, graph: Artifact) -> Call:
        """Return a call as that graph takes it."""

    def layer_findings(self, run: LayerRun) -> tuple[list[Measurement], list[Finding]]:
        """Return the measurements and findings of the layers' values, first layer first, blamed, then of running statistics; nothing
        without layers.
        """

    def not_given(self, run: LayerRun) -> str:
        """Return in words what a route does not show and nothing is said against; empty where it shows all."""

    def first_error(self, test_vectors: TestVectors, outputs: Bundle, findings: Sequence[Finding]) -> str:
        """Return in words at which layer errors begin and whether they change the choice; empty without layers."""

    def explain(
        self, test_vectors: TestVectors, compared: Comparison, findings: Sequence[Finding], situation: Situation
    ) -> Explanation:
        """Return which findings have a known cause, and what lies outside the formulas of causes."""

    def candidates(
        self, test_vectors: TestVectors, compared: Comparison, finding: Finding, situation: Situation
    ) -> tuple[str, ...]:
        """Return the causes of the whole register, of any route, that would explain a finding; none without formulas."""


class KernelSubject:
    """A kernel: its graph is run whole."""

    layered, trained = False, False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def vectors(self, case: Case, golden: Golden) -> TestVectors:
        test_vectors = generate(self._kernel, case.aspect, case.dtype, golden)
        test_vectors = with_sizes(self._kernel, case.aspect, case.dtype, test_vectors)
        return with_layouts(self._kernel, case.aspect, test_vectors)

    def author(self, dtype: str) -> Artifact:
        return author(self._kernel, dtype)

    def constants(self, case: Case) -> Bundle | None:  # noqa: ARG002  a kernel's parameters are numbers of its graph
        return None

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        return inspect(artifact, self._kernel, case.dtype)

    def graph_findings(self, artifact: Artifact, case: Case) -> list[Finding]:  # noqa: ARG002  whatever the case
        return drawing_findings(artifact, io_names(artifact.model)[1])

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:  # noqa: ARG002  it has one
        return vjp_artifact(artifact, self._kernel) if aspect == "gradient" else artifact

    def call_for(self, call: Call, graph: Artifact) -> Call:  # noqa: ARG002  it takes all inputs
        return _with_cotangents(call)

    def layer_findings(self, run: LayerRun) -> tuple[list[Measurement], list[Finding]]:  # noqa: ARG002
        return [], []

    def not_given(self, run: LayerRun) -> str:  # noqa: ARG002
        return ""

    def first_error(self, test_vectors: TestVectors, outputs: Bundle, findings: Sequence[Finding]) -> str:  # noqa: ARG002
        return ""

    def explain(
        self, test_vectors: TestVectors, compared: Comparison, findings: Sequence[Finding], situation: Situation
    ) -> Explanation:
        return Explainer(self._kernel, test_vectors, situation).explain(compared, findings)

    def candidates(
        self, test_vectors: TestVectors, compared: Comparison, finding: Finding, situation: Situation
    ) -> tuple[str, ...]:
        return Explainer(self._kernel, test_vectors, situation).candidates(compared, finding)


class ModelSubject:
    """A model: of its graph the part is run that the outputs need, on the inputs that are left in it."""

    layered = True

    def __init__(self, model: Model) -> None:
        self._model, self.trained = model, has_statistics(model)

    def vectors(self, case: Case, golden: Golden) -> TestVectors:  # noqa: ARG002  its goldens hold the oracle, which is asked
        vectors = generate_model(self._model, case.aspect, case.dtype, constants=case.constants)
        return with_layouts(self._model, case.aspect, vectors) if DTYPES[case.dtype].bits > 16 else vectors

    def author(self, dtype: str) -> Artifact:
        return author_model(self._model, dtype)

    def constants(self, case: Case) -> Bundle | None:
        return draw_parameters(self._model) if case.constants else None

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        return inspect_model(artifact, self._model, case.dtype, constants=case.constants)

    def graph_findings(self, artifact: Artifact, case: Case) -> list[Finding]:
        outputs = [OUTPUT] if case.constants else [OUTPUT, LOSS]
        return of_model(artifact, self._model, outputs, case.dtype, self.constants(case))

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:
        if aspect == "gradient":
            return vjp_artifact(subgraph_to(artifact, [LOSS]), self._model)
        return subgraph_to(artifact, outputs)

    def call_for(self, call: Call, graph: Artifact) -> Call:
        return call_with_inputs_of(_with_cotangents(call), graph)

    def layer_findings(self, run: LayerRun) -> tuple[list[Measurement], list[Finding]]:
        of_layers, of_statistics = self._layer_findings(run), self._statistics_findings(run)
        return of_layers[0] + of_statistics[0], of_layers[1] + of_statistics[1]

    def _layer_findings(self, run: LayerRun) -> tuple[list[Measurement], list[Finding]]:
        case = run.job.case
        tensors, fmt = run.inputs, DTYPES[case.dtype]
        values = run.intermediates if run.graph is None else layer_values(self._model, run.graph, run.job, run.run)
        if values is None:
            return [], []
        measurements, findings = layerwise(self._model, tensors, values, fmt, fused=run.graph is not None)
        reevaluation = LayerReevaluation(run.graph, self._model, tensors, fmt) if run.graph and findings else None
        return measurements, [blame(finding, self._model, case, reevaluation) for finding in findings]

    def _statistics_findings(self, run: LayerRun) -> tuple[list[Measurement], list[Finding]]:
        if run.statistics is None:
            return [], []
        case = run.job.case
        measurements, findings = compare_statistics(self._model, case.dtype, run.statistics)
        return measurements, [
            finding if finding.blame == Blame.CONVENTION else blame(finding, self._model, case) for finding in findings
        ]

    def not_given(self, run: LayerRun) -> str:
        return "running statistics: not given" if self.trained and run.statistics is None else ""

    def first_error(self, test_vectors: TestVectors, outputs: Bundle, findings: Sequence[Finding]) -> str:
        chosen = top_1(self._model, test_vectors.vectors[0].truth, outputs) if findings else ""
        return "; ".join(filter(None, (locate_layer(findings), chosen)))

    def explain(
        self,
        test_vectors: TestVectors,  # noqa: ARG002  models have causes without formulas alone
        compared: Comparison,  # noqa: ARG002
        findings: Sequence[Finding],
        situation: Situation,
    ) -> Explanation:
        by_convention = {
            finding.place: Coverage(CONVENTION, CONVENTION, 0.0, "")
            for finding in findings
            if finding.blame == Blame.CONVENTION
        }
        return Explanation({**plainly(findings, situation.case, situation.active), **by_convention}, [])

    def candidates(self, *_: object) -> tuple[str, ...]:
        return ()


def _with_cotangents(call: Call) -> Call:
    return msgspec.structs.replace(call, inputs=with_cotangents(call.inputs, call.cotangents), cotangents=None)


def subject_of(subject: Kernel | Model) -> Subject:
    """Return a kernel or model as the line takes it."""
    return ModelSubject(subject) if isinstance(subject, Model) else KernelSubject(subject)
