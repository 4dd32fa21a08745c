"""What the line asks of a subject, whether it is a kernel or a model: its test vectors, its graphs, and what of a graph is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.gates import inspect, inspect_model, io_names
from actconform.onnx.gradient_artifact import vjp_artifact, with_cotangents
from actconform.onnx.subgraph import extract_subgraph
from actconform.testdata.kernel_vectors import generate
from actconform.testdata.model_tensors import draw_parameters
from actconform.testdata.model_vectors import generate_model
from actconform.types.model import LOSS, Model
from actconform.workers.protocol import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.gates import Breach
    from actconform.testdata.golden.store import Golden
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Artifact, Aspect, Bundle, Case, Kernel


class Subject(Protocol):
    """A kernel or a model on the line."""

    layered: bool
    """Whether it has layers, whose values are compared too."""

    def vectors(self, case: Case, golden: Golden) -> TestVectors:
        """Return the test vectors of a case. Raises Unsupported where there are none."""

    def author(self, dtype: str) -> Artifact:
        """Return the graph that we write."""

    def constants(self, case: Case) -> Bundle | None:
        """Return the parameters that an exporter folds into the graph of a case; None where they stay inputs."""

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        """Return how a graph breaks what the graph of this case must be."""

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:
        """Return what of a graph is run for an aspect: of a gradient the vector-Jacobian products, else the `outputs`."""

    def call_for(self, call: Call, graph: Artifact) -> Call:
        """Return a call as that graph takes it."""


class KernelSubject:
    """A kernel: its graph is run whole."""

    layered = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def vectors(self, case: Case, golden: Golden) -> TestVectors:
        return generate(self._kernel, case.aspect, case.dtype, golden)

    def author(self, dtype: str) -> Artifact:
        return author(self._kernel, dtype)

    def constants(self, case: Case) -> Bundle | None:  # noqa: ARG002  a kernel's parameters are numbers of its graph
        return None

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        return inspect(artifact, self._kernel, case.dtype)

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:  # noqa: ARG002  it has one
        return vjp_artifact(artifact, self._kernel) if aspect == "gradient" else artifact

    def call_for(self, call: Call, graph: Artifact) -> Call:  # noqa: ARG002  it takes all inputs
        return Call(call.regime, with_cotangents(call.inputs, call.cotangents))


class ModelSubject:
    """A model: of its graph the part is run that the outputs need, on the inputs that are left in it."""

    layered = True

    def __init__(self, model: Model) -> None:
        self._model = model

    def vectors(self, case: Case, golden: Golden) -> TestVectors:  # noqa: ARG002  its goldens hold the oracle, which is asked
        return generate_model(self._model, case.aspect, case.dtype, constants=case.constants)

    def author(self, dtype: str) -> Artifact:
        return author_model(self._model, dtype)

    def constants(self, case: Case) -> Bundle | None:
        return draw_parameters(self._model) if case.constants else None

    def gates(self, artifact: Artifact, case: Case) -> list[Breach]:
        return inspect_model(artifact, self._model, case.dtype, constants=case.constants)

    def graph_for(self, artifact: Artifact, aspect: Aspect, outputs: Sequence[str]) -> Artifact:
        if aspect == "gradient":
            return vjp_artifact(subgraph_to(artifact, [LOSS]), self._model)
        return subgraph_to(artifact, outputs)

    def call_for(self, call: Call, graph: Artifact) -> Call:
        return call_with_inputs_of(Call(call.regime, with_cotangents(call.inputs, call.cotangents)), graph)


def subject_of(subject: Kernel | Model) -> Subject:
    """Return a kernel or model as the line takes it."""
    return ModelSubject(subject) if isinstance(subject, Model) else KernelSubject(subject)


def subgraph_to(artifact: Artifact, outputs: Sequence[str]) -> Artifact:
    """Return the part of a graph that its `outputs` need: a layer marked as an output would keep a runtime from fusing it."""
    return msgspec.structs.replace(artifact, model=extract_subgraph(artifact.model, outputs))


def call_with_inputs_of(call: Call, artifact: Artifact) -> Call:
    """Return the call with the inputs that the graph has: exporters drop what nothing reads."""
    names, _ = io_names(artifact.model)
    return Call(call.regime, {name: call.inputs[name] for name in names if name in call.inputs}, call.cotangents)
