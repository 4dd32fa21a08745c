"""The rule on runtimes that do not load the model's opset or IR version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.plugin.lint_rule import LintRule
from actconform.text import one_line
from actconform.types.lint import LintObservation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.linting.linted_model import LintedModel


def _refused(model: LintedModel) -> Iterator[LintObservation]:
    for answer in model.runtimes:
        if answer.refusal:
            yield LintObservation(
                message=f"{answer.runtime} {answer.version} does not load opset {model.opset} in IR version {model.proto.ir_version}: "
                f"{one_line(answer.refusal, 300)}",
                node=answer.runtime,
                operator="runtime",
                numbers={"opset": model.opset, "ir_version": model.proto.ir_version},
            )


RUNTIME_RULES = (
    LintRule(
        code="AC208",
        name="opset-that-a-runtime-lacks",
        severity="error",
        why="A runtime that knows opsets and IR versions up to n refuses a model that states n + 1, whatever operators it uses.",
        hint="Export at an older opset, convert with onnx.version_converter, or install a newer runtime.",
        check=_refused,
        needs="--runtime",
    ),
)
