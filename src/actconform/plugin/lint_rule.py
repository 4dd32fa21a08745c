"""A rule of `actconform lint`: what plugins return from `actconform_lint_rules`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence  # noqa: TC003  fields of a struct
from typing import Any

import msgspec

from actconform.types.lint import LintFix, LintNeed, LintObservation, Severity  # noqa: TC001  likewise


class LintRule(msgspec.Struct, frozen=True, kw_only=True):
    """One known mistake: how it is seen in a model, why it is one, and what to do."""

    code: str
    """Two capital letters or more and three digits, "XY101": unique among all plugins; AC is actconform's own."""
    name: str
    """Lower case with hyphens."""
    severity: Severity
    """Of its observations, but for those that state their own."""
    why: str
    """One sentence, with the formula."""
    hint: str
    """What to do, one sentence."""
    check: Callable[[Any], Iterable[LintObservation]]
    """Yields what it sees in an `actconform.linting.linted_model.LintedModel`."""
    needs: LintNeed = ""
    """The option without which it has nothing to look at; "" where the graph is enough."""
    fix: Callable[[Any, Any], Sequence[LintFix]] | None = None
    """Changes an onnx.ModelProto in place, given the LintedModel of it, and returns what it did; only what keeps or plainly repairs the meaning."""
