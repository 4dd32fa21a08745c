"""The document holds every cause with its formulas and its proof, and its tables stay tables."""

from __future__ import annotations

import re

from actconform.plugin.loader import load_plugins
from actconform.report.files.known_deviations import document
from actconform.verdict.causes.register import read_register

REGISTER = """
[[library]]
name = "lib"
when = { keras = ">=3.15", onednn = ["off", "AVX2"] }
ulp = { exp = 2, tanh = 3 }
absolute = { tanh = 6 }
flush = "always"

[[cause]]
id = "cancels"
reason = "exp(x) - 1 loses\\n every digit"
link = "https://example.org/1"
since = "0.2"
routes = ["keras", "keras-xla"]
library = "lib"
when = { keras = "<4" }
same_as = { gelu-default = "gelu-tanh" }
covers = [{ class = "bias", kernels = ["mlp-*"], tensors = ["d_w"], bound = 2e7 }]
[cause.value]
elu = "where((x > 0) | (x == 0), x, exp(x) - 1)"
[cause.gradient]
elu = ["g", "g * exp(x)"]

[[cause]]
id = "graph"
reason = "every node rounds"
link = "unreported"
since = "0.2"
routes = ["*+rt"]
library = "lib"
graph = true
"""


def rows(text: str) -> list[list[str]]:
    """Return the cells of each table row, split at pipes that are not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_cause_tells_why_where_by_which_formula_and_how_it_is_proven() -> None:
    text = document(read_register(REGISTER, "test"), {"cancels": (12345, 0.456)})
    assert "## cancels" in text
    assert "exp(x) - 1 loses every digit ([reported](https://example.org/1); since 0.2)" in text
    assert "Routes: `keras`, `keras-xla`. Library: lib. Where keras <4." in text
    assert "Explained: 12,345 elements, at most 0.46 of the bound." in text
    assert ["elu", "value", "`where((x > 0) \\| (x == 0), x, exp(x) - 1)`"] in rows(text)
    assert ["elu", "gradient", "`g` or `g * exp(x)`"] in rows(text)
    assert ["gelu-default", "both", "as gelu-tanh"] in rows(text)
    assert ["mlp-*", "value", "bias; tensors d_w; at most 2e+07"] in rows(text)
    assert "every node rounds (unreported; since 0.2)" in text
    assert "The graph is the formula" in text


def test_a_library_tells_its_accuracy_and_where_it_holds() -> None:
    text = document(read_register(REGISTER, "test"), {})
    assert ["lib", "keras >=3.15; onednn off or AVX2", "exp 2, tanh 3 + 6 u", "always"] in rows(text)


def test_every_row_has_the_cells_of_its_table() -> None:
    for row in rows(document(load_plugins().register, {})):
        assert len(row) in (3, 4)


def test_every_registered_cause_is_in_the_document() -> None:
    register = load_plugins().register
    text = document(register, {})
    assert [f"## {cause.id}" for cause in register.causes] == [
        line for line in text.splitlines() if line.startswith("## ") and line != "## Libraries"
    ]
