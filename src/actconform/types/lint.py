"""What a lint says of a model: findings with their numbers, and what a framework knows of a model's training."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
LintNeed = Literal["", "--loss", "--targets", "--inputs", "--runtime"]
NEEDS: tuple[LintNeed, ...] = get_args(LintNeed)
LossKind = Literal["cross-entropy", "binary cross-entropy", "negative log-likelihood", "regression"]
Expected = Literal["logits", "probabilities", "log-probabilities", "values"]


class TrainingLoss(msgspec.Struct, frozen=True):
    """A loss that a model was trained by, or is to be trained by."""

    kind: LossKind
    expects: Expected
    """What it takes of the model."""
    place: str
    """Where it stands, for people: "compiled loss BinaryCrossentropy(from_logits=True)", "attribute criterion (CrossEntropyLoss)"."""
    certain: bool = True
    """Whether the model's output surely is what it takes; a loss among a module's attributes may take something else."""


class LintObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule sees at one place."""

    message: str
    """One sentence, with the numbers."""
    node: str = ""
    """The node's name, or the first tensor that it gives; "" for the model as such."""
    operator: str = ""
    layer: str = ""
    """Its path in the source, where the exporter wrote it."""
    numbers: dict[str, int | float | str] = {}
    """The same numbers, for programs."""
    severity: Severity | None = None
    """Where it is not that of the rule."""


class LintFinding(msgspec.Struct, frozen=True, kw_only=True):
    """An observation with the rule that made it."""

    code: str
    rule: str
    severity: Severity
    message: str
    why: str
    hint: str
    node: str = ""
    operator: str = ""
    layer: str = ""
    numbers: dict[str, int | float | str] = {}


class LintFix(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was made to a model."""

    code: str
    node: str
    change: str
    """One sentence."""
    exact: bool
    """Whether the outputs stay the same bit for bit wherever the model ran before."""


class LintResult(msgspec.Struct, frozen=True, kw_only=True):
    """All that a lint says of one model."""

    source: str
    kind: str
    """"onnx", or that of a trained source."""
    graph: str
    """What was linted: "opset 18, 204 nodes, by pytorch 2.13"; for a trained source with its exporter."""
    findings: tuple[LintFinding, ...]
    ignored: int = 0
    """Findings that the settings or the command line leave out."""
    notes: tuple[str, ...] = ()
    """What was not looked at, and why."""
    not_asked: dict[str, tuple[str, ...]] = {}
    """Codes of the rules that had nothing to look at, by the option that was not given."""

    def count(self, severity: Severity) -> int:
        """Return how many findings have that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def clean(self) -> bool:
        """Whether no finding is an error or a warning."""
        return all(finding.severity == "note" for finding in self.findings)
