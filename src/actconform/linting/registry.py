"""All rules of lint: those that come with actconform, and those of plugins; and which of their findings are left out."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

from actconform.errors import UsageError, near
from actconform.linting.rules.activations import ACTIVATION_RULES
from actconform.linting.rules.batch_size import BATCH_RULES
from actconform.linting.rules.defaults import DEFAULT_RULES
from actconform.linting.rules.losses import LOSS_RULES
from actconform.linting.rules.numbers import NUMBER_RULES
from actconform.linting.rules.runtimes import RUNTIME_RULES
from actconform.linting.rules.training import TRAINING_RULES
from actconform.linting.rules.written_graph import WRITTEN_RULES
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.plugin.lint_rule import LintRule
    from actconform.types.lint import LintFinding

OWN_RULES = tuple(
    sorted(
        (
            *ACTIVATION_RULES,
            *LOSS_RULES,
            *TRAINING_RULES,
            *BATCH_RULES,
            *NUMBER_RULES,
            *RUNTIME_RULES,
            *DEFAULT_RULES,
            *WRITTEN_RULES,
        ),
        key=lambda rule: rule.code,
    )
)
_CODE = re.compile(r"[A-Za-z]{2,8}[0-9]{3}")


class Ignored(NamedTuple):
    """What is left out: a code, at the nodes and layers whose names fit a glob."""

    code: str
    nodes: str = "*"

    def covers(self, finding: LintFinding) -> bool:
        """Return whether a finding is left out."""
        places = (finding.node, finding.layer)
        return finding.code == self.code and any(fnmatch.fnmatchcase(place, self.nodes) for place in places)


def parsed_ignores(texts: Iterable[str], rules: Iterable[LintRule], where: str) -> list[Ignored]:
    """Return what "CODE" and "CODE:GLOB" leave out. Raises UsageError, naming `where`, for a code that no rule has."""
    codes = [rule.code for rule in rules]
    ignores = []
    for text in texts:
        code, colon, nodes = text.partition(":")
        code = code.strip().upper()
        if not _CODE.fullmatch(code) or code not in codes:
            raise UsageError(
                f"{where} {one_line(text, 80)!r}: no rule has this code{near(code, codes)}; `actconform lint --rules` lists all"
            )
        if colon and not nodes.strip():
            raise UsageError(
                f"{where} {one_line(text, 80)!r}: has no glob behind the colon: CODE:NODE, as AC102:/head/*"
            )
        ignores.append(Ignored(code, nodes.strip() or "*"))
    return ignores
