"""The document holds every deviation, and its tables stay tables."""

from __future__ import annotations

import re

import msgspec

from actconform.plugins import load_plugins
from actconform.report.known import document
from actconform.types import Deviation

ONE = Deviation(
    id="elu-near-zero",
    class_="tail",
    aspect="value",
    kernels=("elu", "selu"),
    dtypes=("f32", "bf16"),
    routes=("keras",),
    reason="expm1 is exp(x) - 1",
    link="https://example.org/1",
    blame="framework",
    bound=2e7,
    inputs=((-1e-6, 0.0), "nan"),
    when={"keras": ">=3.15", "cpu_capability": ("AVX2", "AVX512")},
)
replace = msgspec.structs.replace


def rows(text):
    """Return the cells of each table row, split at pipes that are not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_row_tells_what_where_how_much_when_and_why():
    (cells,) = rows(document([ONE]))
    identifier, class_, aspect, kernels, dtypes, inputs, bound, when, why = cells
    assert (identifier, class_, aspect) == ("`elu-near-zero`", "tail", "value")
    assert (kernels, dtypes) == ("elu, selu", "f32, bf16")
    assert inputs == "[-1e-06, 0], nan"
    assert float(bound) == 2e7
    assert when == "keras >=3.15; cpu_capability AVX2 or AVX512"
    assert ONE.reason in why
    assert "framework" in why
    assert "(https://example.org/1)" in why


def test_routes_have_sections_and_the_order_is_stable():
    register = [replace(ONE, id="b"), replace(ONE, id="c", routes=("a", "z")), replace(ONE, id="a")]
    text = document(register)
    assert text == document(register[::-1])
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## a, z", "## keras"]
    assert [row[0] for row in rows(text)] == ["`c`", "`a`", "`b`"]


def test_pipes_and_line_ends_break_no_row():
    text = document([replace(ONE, reason="|x| < 1:\n  either | or", link="a|b")])
    (cells,) = rows(text)
    assert len(cells) == 9
    assert r"\|x\| < 1: either \| or" in cells[-1]


def test_no_bound_and_no_inputs_are_said():
    (cells,) = rows(document([replace(ONE, bound=0.0, inputs=(), when={})]))
    assert cells[5:8] == ["any", "", ""]


def test_an_empty_register_has_no_tables():
    assert rows(document([])) == []
    assert document([]).startswith("# Known deviations")


def test_every_installed_deviation_is_in_the_document():
    register = load_plugins().deviations
    ids = sorted(row[0].strip("`") for row in rows(document(register)))
    assert ids == sorted(deviation.id for deviation in register)
