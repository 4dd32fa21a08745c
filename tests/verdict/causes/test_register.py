"""Registers as TOML: what is read, what is refused and where, which cause concerns which case."""

from __future__ import annotations

from typing import Any

import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.errors import RegisterError
from actconform.types import Case, Finding, Interval
from actconform.types.cause import Register, holds, join_registers
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import Arithmetic
from actconform.verdict.causes.check import check_formulas
from actconform.verdict.causes.register import read_register

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
LIBRARY = '[[library]]\nname = "lib"\nulp = { exp = 1, "exp/f16" = 2 }\nabsolute = { tanh = 6 }\n'
HEAD = '[[cause]]\nid = "c"\nreason = "r"\nlink = "unreported"\nsince = "0.2"\nroutes = ["torch"]\n'


def read(body: str, head: str = HEAD) -> Register:
    return read_register(LIBRARY + head + body, "file.toml")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            'value = { elu = "exp(x) -" }\nlibrary = "lib"',
            r"file.toml: cause 'c': value.elu: 'exp\(x\) -' does not parse",
        ),
        ('gradient = { elu = ["g", "foo(x)"] }\nlibrary = "lib"', "gradient.elu: 'foo' is no function"),
        ('value = { elu = "x" }', "needs the library"),
        ("", "covers nothing"),
        ("graph = true", "needs the library"),
        ('colour = "red"', "unknown field `colour`.*\\[\\[cause\\]\\]"),
        ('covers = [{ class = "tail" }]', "missing required field `kernels`"),
        ('when = { torch = "2.x" }\ngraph = true\nlibrary = "lib"', 'torch = "2.x" is no version range'),
        ("value = 3", "Expected `object`"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(body: str, words: str) -> None:
    with pytest.raises(RegisterError, match=words):
        read(body)


def test_a_text_that_is_no_toml_an_id_twice_and_an_old_register_are_refused() -> None:
    with pytest.raises(RegisterError, match=r"file.toml: "):
        read_register("[[cause", "file.toml")
    with pytest.raises(RegisterError, match="two causes have the id 'c'"):
        read('value = { elu = "x" }\nlibrary = "lib"\n' + HEAD + 'value = { elu = "x" }\nlibrary = "lib"')
    with pytest.raises(RegisterError, match=r"unknown field `deviation`.*\[\[library\]\] and \[\[cause\]\] tables"):
        read_register('[[deviation]]\nid = "old"', "file.toml")
    with pytest.raises(RegisterError, match="reason and link must say something"):
        read('value = { elu = "x" }\nlibrary = "lib"', HEAD.replace('"r"', '" "'))


def test_an_operator_that_has_no_formula_cannot_be_replaced() -> None:
    with pytest.raises(RegisterError, match="'Loop' has no formula to replace"):
        read_register('[[library]]\nname = "lib"\noperators = { Loop = "x" }', "file.toml")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('value = { elu = "x + beta" }', "value.elu: 'x \\+ beta' reads 'beta'"),
        ('value = { elu = "g * x" }', "reads 'g'"),
        ('value = { elo = "x" }', "no kernel is called 'elo'; did you mean elu"),
        ('value = { elu = "x / 0" }', "is not finite anywhere"),
        ('gradient = { silu = "g * log(x - 1000)" }', "is not finite anywhere"),
        ('same_as = { gelu-default = "gelu-tan" }', "no kernel is called 'gelu-tan'; did you mean gelu-tanh"),
    ],
)
def test_a_formula_that_fits_no_kernel_is_refused_with_its_place(table: str, words: str) -> None:
    with pytest.raises(RegisterError, match=f"cause 'c': .*{words}"):
        check_formulas(read(f'{table}\nlibrary = "lib"'), KERNELS)


def test_formulas_of_every_form_of_kernel_are_accepted() -> None:
    table = """library = "lib"
[cause.value]
elu-half = "where(x > 0, x, alpha * (exp(x) - 1))"
"leaky-relu*" = "where(x > 0, x, alpha * x)"
hard-shrink = "where(abs(x) > lambda, x, 0)"
geglu = "a * b"
prelu = "where(x > 0, x, slope * x)"
softmax = "softmax(x)"
[cause.gradient]
glu = "halves(g * sigmoid(b), g * a)"
prelu = "where(x > 0, g, g * slope)"
"prelu/d_slope" = "where(x > 0, 0, g * x)"
"""
    check_formulas(read(table), KERNELS)


def case(subject: str = "elu", aspect: Any = "value", route: str = "torch") -> Case:
    return Case(subject, aspect, "f32", route)


def test_a_cause_concerns_its_routes_kernels_and_aspect_and_gives_the_text_of_a_tensor() -> None:
    register = read(
        'library = "lib"\n[cause.value]\n"elu*" = "x"\nelu = ["1 * x", "x * 1"]\n[cause.gradient]\nprelu = "g"\n"prelu/d_slope" = "g * x"'
    )
    (cause,) = register.causes
    assert cause.concerns(case())
    assert cause.concerns(case("elu-half"))
    assert not cause.concerns(case("relu"))
    assert not cause.concerns(case(aspect="gradient"))
    assert not cause.concerns(case(route="torch+ort-cpu"))
    assert cause.texts(case(), "y") == ("1 * x", "x * 1")
    assert cause.texts(case("elu-half"), "y") == ("x",)
    assert cause.texts(case("prelu", "gradient"), "d_x") == ("g",)
    assert cause.texts(case("prelu", "gradient"), "d_slope") == ("g * x",)
    assert cause.texts(case("relu"), "y") == ()


def test_a_cover_matches_class_aspect_kernel_dtype_tensor_regime_and_bound() -> None:
    (cause,) = read('covers = [{ class = "tail", kernels = ["mlp-*"], tensors = ["d_*"], bound = 3.0 }]').causes
    (cover,) = cause.covers
    finding = Finding(
        class_="tail", count=1, regime="r", tensor="d_w", interval=Interval("", ""), worst=None, magnitude=2.0
    )

    def matches(subject: str = "mlp-relu", **fields: Any) -> bool:
        import msgspec

        return cover.matches(case(subject), msgspec.structs.replace(finding, **fields))

    assert matches()
    assert not matches("cnn")
    assert not matches(class_="inf")
    assert not matches(tensor="y")
    assert not matches(magnitude=3.1)


@pytest.mark.parametrize(
    ("when", "facts", "wanted"),
    [
        ({"torch": ">=2,<3"}, {"torch": "2.13.0+cpu"}, True),
        ({"torch": ">=2,<3"}, {"torch": "3.0"}, False),
        ({"torch": ">=2"}, {}, False),
        ({"torch": ">=2"}, {"torch": "nightly"}, False),
        ({"onednn": ("off", "AVX2")}, {"onednn": "off"}, True),
        ({"onednn": ("off",)}, {"onednn": "AVX512"}, False),
        ({"cpu_features": ("ASIMDHP",)}, {"cpu_features": "ASIMD ASIMDHP FPHP"}, True),
        ({"cpu_features": ("ASIMD ASIMDHP FPHP",)}, {"cpu_features": "ASIMD ASIMDHP FPHP"}, True),
        ({"cpu_features": ("ASIMDHP",)}, {"cpu_features": "ASIMD NEON"}, False),
        ({"cpu": ("ASIMDHP",)}, {"cpu": "ASIMD ASIMDHP"}, False),
    ],
)
def test_when_is_held_against_the_facts(when: Any, facts: dict[str, str], wanted: bool) -> None:
    assert holds(when, facts) is wanted


def test_a_library_gives_the_arithmetic_of_a_format_under_the_facts() -> None:
    library = read('graph = true\nlibrary = "lib"').library("lib", {})
    assert library is not None
    flushed = Arithmetic.of(library, DTYPES["f32"], {"subnormals": "flushed"})
    assert (flushed.flush, Arithmetic.of(library, DTYPES["f32"], {}).flush) == ("always", "kept")
    assert flushed.accuracy == {"exp": (1.0, 0.0), "exp/f16": (2.0, 0.0), "tanh": (0.0, 6.0)}


def test_registers_of_plugins_are_one() -> None:
    one, other = read('graph = true\nlibrary = "lib"'), read_register(LIBRARY.replace('"lib"', '"other"'), "b")
    both = join_registers([one, other])
    assert [library.name for library in both.libraries] == ["lib", "other"]
    assert both.library("other", {}) is not None
    assert both.library("none", {}) is None
