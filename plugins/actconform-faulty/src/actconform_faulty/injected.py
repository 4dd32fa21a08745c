"""The register of faults, and what injects one: a wrapper of a program, of an exported graph, or of a layer's setting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform import Fault, Program
from actconform.types import CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.types import Bundle

BACKENDS = {"torch": "faulty-torch", "ort": "faulty-ort", "export": "faulty-export"}
UNUSUAL = {"torch": "unusual-torch", "ort": "unusual-ort", "export": "unusual-export", "flushing": "unusual-flushing"}
HEALTHY = "healthy but unusual"  # the family of what must be left alone


class Answering(Program):
    """A program whose answers are changed: `forward` and `vjp` get (inputs, outputs) and return the changed outputs."""

    def __init__(
        self,
        healthy: Program,
        forward: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
        vjp: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self._healthy, self._forward, self._vjp = healthy, forward, vjp
        self.implementation, self.placement = healthy.implementation, healthy.placement

    def forward(self, inputs: Bundle) -> Bundle:
        outputs = self._healthy.forward(inputs)
        return self._forward(dict(inputs), dict(outputs)) if self._forward else outputs

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        outputs = self._healthy.vjp(inputs, cotangents)
        tensors = {**inputs, **{f"ct_{name}": array for name, array in cotangents.items()}}
        return self._vjp(tensors, dict(outputs)) if self._vjp else outputs

    def intermediates(self, inputs: Bundle) -> Bundle:
        return self._healthy.intermediates(inputs)

    def statistics(self, inputs: Bundle) -> Bundle:
        return self._healthy.statistics(inputs)


class Injected(NamedTuple):
    """A fault and how it is injected.

    `into` is "torch", "ort" or "export". `inject` gets, of a backend, the healthy Program and the subject (Kernel or Model) and
    returns the faulty Program; of "ort" and "export" it may instead be a function of the ModelProto's bytes (`on_graph`).
    """

    fault: Fault
    into: str
    inject: Callable[..., Any]
    on_graph: bool = False
    on_subject: bool = False
    """`inject` gets the Kernel or Model and returns the one that is built in its place: another epsilon, another slope."""
    on_training: bool = False
    """`inject` gets the TrainingTask and returns the TrainingRecord."""


INJECTED: dict[str, Injected] = {}


def fault(  # noqa: PLR0913  one parameter a field of the fault
    into: str,
    name: str,
    family: str,
    what: str,
    *cases: str,
    findings: str = "",
    blames: str = "",
    tensor: str = "",
    verdict: str = "FAIL",
    on_graph: bool = False,
    on_subject: bool = False,
    on_training: bool = False,
    constants: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what injects the fault `name`; `cases` are SUBJECT/ASPECT/DTYPE, `findings` and `blames` words, any of which will do.

    With `constants` the cases are on routes of graphs that users ship, which hold the model's parameters as initializers.

        @fault("torch", "relu-nan-to-zero", "special values", "NaN becomes 0", "relu/value/f32",
               findings="nan-lost", blames="framework")
        def _(program, subject):
            return Answering(program, lambda inputs, outputs: {"y": numpy.nan_to_num(outputs["y"], nan=0.0)})

    Raises ValueError where a name is taken.
    """
    full = f"{(UNUSUAL if family == HEALTHY else BACKENDS)[into]}@{name}"
    exporter = {"ort": "authored", "export": full}.get(into)
    if constants:
        exporter = f"{'torch-dynamo' if into == 'ort' else full}{CONSTANTS}"
    route = {"torch": full, "flushing": full, "ort": f"{exporter}+{full}", "export": f"{exporter}+ort-cpu"}[into]

    def register(inject: Callable[..., Any]) -> Callable[..., Any]:
        if full in INJECTED:
            raise ValueError(f"two faults are called {full}")
        one = Fault(
            name=full,
            family=family,
            what=what,
            cases=tuple(f"{case}/{route}" for case in cases),
            findings=tuple(findings.split()),
            blames=tuple(blames.split()),
            tensor=tensor,
            verdict=verdict,
        )
        INJECTED[full] = Injected(one, into, inject, on_graph, on_subject, on_training)
        return inject

    return register


def healthy(
    into: str,
    name: str,
    what: str,
    *cases: str,
    on_graph: bool = False,
    on_training: bool = False,
    constants: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what computes otherwise, and well: as `fault`, but no case may have a finding that is not known."""
    return fault(
        into,
        name,
        HEALTHY,
        what,
        *cases,
        verdict="PASS",
        on_graph=on_graph,
        on_training=on_training,
        constants=constants,
    )


ROOMS = (
    "definition",
    "precision",
    "special",
    "structure",
    "gradients",
    "layers",
    "exports",
    "shipped",
    "optimization",
    "behaviour",
    "sixteen_bits",
    "one_sided",
    "patterns",
    "cotangents",
    "export_graphs",
    "questions",
    "narrow_models",
    "sequences",
    "memory_layout",
    "repetition",
    "windows",
    "sizes",
    "resources",
    "state",
    "training",
    "training_graphs",
)
HEALTHY_ROOMS = ("healthy", "healthy_habits", "healthy_layers", "healthy_graphs", "healthy_training")
for _room in (*ROOMS, *HEALTHY_ROOMS):
    import_module(f"actconform_faulty.{_room}")
