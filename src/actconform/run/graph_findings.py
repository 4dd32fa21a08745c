"""What can be seen of an exported graph without running it: parameters that are others, numbers that are nearly right, training that stays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actconform.onnx.parameters import altered_parameters, near_epsilons
from actconform.onnx.training_mode import drawing_nodes, training_norms
from actconform.text import number_of
from actconform.types import NOWHERE, Blame, Finding, FindingClass
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.parameters import Altered
    from actconform.types import Artifact, Bundle
    from actconform.types.model import Model

DRAWS = "the graph draws random numbers"
ANOTHER = 2.0**24  # roundings: how far another number altogether is off


def drawing_findings(artifact: Artifact, outputs: Sequence[str]) -> list[Finding]:
    """Return a finding `nondeterministic` where the outputs need nodes that draw random numbers."""
    nodes = drawing_nodes(artifact.model, outputs)
    return [_finding(FindingClass.NONDETERMINISTIC, "", f"{DRAWS}: {', '.join(nodes)}", len(nodes))] if nodes else []


def of_model(
    artifact: Artifact, model: Model, outputs: Sequence[str], dtype: str, parameters: Bundle | None
) -> list[Finding]:
    """Return the findings of a model's graph; with `parameters`, those that it was given to hold, what it holds in their place.

    `nondeterministic` as `drawing_findings`; `scaled-error` for batch normalization that trains in inference, an epsilon that is near a layer's
    and not its, and a parameter of which an element differs, in units of its rounding.
    """
    findings = drawing_findings(artifact, outputs)
    norms = [] if model.training else training_norms(artifact.model, outputs)
    if norms:
        evidence = f"the batch's own statistics in inference: {', '.join(norms)}"
        findings.append(_finding(FindingClass.SCALED_ERROR, "", evidence, len(norms), ANOTHER))
    for layer, number, epsilon in near_epsilons(artifact.model, model, outputs):
        evidence = f"epsilon {number:.9g} in the graph, {epsilon:.9g} in layer {layer}"
        size = abs(number - epsilon) / (DTYPES["f32"].unit_roundoff * epsilon)
        findings.append(_finding(FindingClass.SCALED_ERROR, f"{layer}.epsilon", evidence, 1, size))
    if parameters is not None:
        altered = altered_parameters(artifact.model, model, parameters, dtype)
        findings += [_altered(alteration, DTYPES[dtype].unit_roundoff) for alteration in altered]
    return findings


def _altered(altered: Altered, unit: float) -> Finding:
    size = abs(altered.got - altered.expected) / (unit * max(abs(altered.expected), DTYPES["f32"].smallest_normal))
    if math.isnan(altered.got):
        size = ANOTHER
        evidence = f"no constant of the graph holds parameter {altered.parameter}"
    else:
        evidence = (
            f"parameter {altered.parameter}: {number_of(altered.differing, 'element differs', 'elements differ')}, most {list(altered.place)}: "
            f"{altered.got:.9g} in the graph, {altered.expected:.9g} was given"
        )
    return _finding(FindingClass.SCALED_ERROR, altered.parameter, evidence, altered.differing, size)


def _finding(class_: FindingClass, tensor: str, evidence: str, count: int, magnitude: float = 0.0) -> Finding:
    return Finding(
        class_=class_,
        count=count,
        regime="",
        tensor=tensor,
        interval=NOWHERE,
        worst=None,
        magnitude=magnitude,
        blame=Blame.EXPORTER,
        evidence=evidence,
    )
