"""The register is read strictly: what is mistyped is refused with its place, and what is not known does not hold."""

from __future__ import annotations

import pytest

from actconform.deviations import DeviationError, concerns, covers, holds, read_deviations
from actconform.plugins import load_plugins
from actconform.types import Case, Deviation, Finding

GOOD = """
[[deviation]]
id = "elu-near-zero"
class = "tail"
aspect = "value"
kernels = ["elu", "gelu-*"]
dtypes = ["f32", "*16"]
routes = ["keras", "*+ort-cpu"]
inputs = [[-1e-6, 0], [-inf, -17.5], "nan"]
bound = 2e7
when = { keras = ">=3.15", cpu_capability = ["AVX2", "AVX512"] }
reason = "cancellation"
link = "unreported"
"""
KNOWN = Deviation(
    id="k",
    class_="tail",
    aspect="value",
    kernels=("elu",),
    dtypes=("f32",),
    routes=("keras",),
    reason="r",
    link="l",
    bound=1.0,
)


def known(**changes):
    return Deviation(**{**{name: getattr(KNOWN, name) for name in KNOWN.__struct_fields__}, **changes})


def refused(text):
    with pytest.raises(DeviationError) as caught:
        read_deviations(text, "plugin-x/deviations.toml")
    message = str(caught.value)
    assert message.startswith("plugin-x/deviations.toml: ")
    return message


def test_a_register_reads_as_it_is_written():
    (deviation,) = read_deviations(GOOD, "here")
    assert deviation.class_ == "tail"
    assert deviation.inputs == ((-1e-6, 0.0), (float("-inf"), -17.5), "nan")
    assert deviation.when == {"keras": ">=3.15", "cpu_capability": ("AVX2", "AVX512")}
    assert (deviation.regimes, deviation.tensors, deviation.until) == (("*",), ("*",), "")


@pytest.mark.parametrize("text", ["", "# none yet\n"])
def test_an_empty_register_is_one(text):
    assert read_deviations(text, "here") == ()


def test_several_keep_their_order():
    second = GOOD.replace("elu-near-zero", "another")
    assert [deviation.id for deviation in read_deviations(GOOD + second, "here")] == ["elu-near-zero", "another"]


def test_bad_toml_says_where():
    assert "line 2" in refused("[[deviation]]\nid = elu")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("bound =", "bounds =", "bounds"),
        ('class = "tail"', 'class_ = "tail"', "class"),
        ("[[deviation]]", "[[deviations]]", "deviations"),
        ('link = "unreported"', "", "link"),
        ('class = "tail"', "", "class"),
        ("when = {", "when = { torch = 2,", "when"),
        ('aspect = "value"', 'aspect = "values"', "aspect"),
        ('kernels = ["elu", "gelu-*"]', 'kernels = "elu"', "kernels"),
        ('"nan"]', '"inf"]', "inputs"),
        ("[-1e-6, 0]", "[-1e-6]", "inputs"),
        ("bound = 2e7", 'bound = "large"', "bound"),
    ],
)
def test_a_mistyped_field_is_named(old, new, named):
    assert old in GOOD
    assert named in refused(GOOD.replace(old, new))


def test_two_of_one_id_are_refused():
    assert "'elu-near-zero'" in refused(GOOD + GOOD)


@pytest.mark.parametrize("bad", ["3.15", "=>3.15", "the last one"])
def test_what_is_no_version_range_is_named(bad):
    message = refused(GOOD.replace(">=3.15", bad))
    assert "'elu-near-zero'" in message
    assert f'keras = "{bad}"' in message
    assert f'until = "{bad}"' in refused(f'{GOOD}until = "{bad}"\n')


def test_until_needs_a_version_to_be_read_against():
    without = GOOD.replace('keras = ">=3.15", ', "")
    assert len(read_deviations(without, "here")) == 1
    assert "until" in refused(without + 'until = ">=4"\n')


@pytest.mark.parametrize(
    ("case", "yes"),
    [
        (Case("elu", "value", "f32", "keras"), True),
        (Case("gelu-tanh", "value", "bf16", "authored+ort-cpu"), True),
        (Case("gelu-tanh", "value", "f16", "torch-dynamo+ort-cpu"), True),
        (Case("gelu-tanh", "gradient", "f32", "keras"), False),
        (Case("Elu", "value", "f32", "keras"), False),
        (Case("celu", "value", "f32", "keras"), False),
        (Case("elu", "value", "f64", "keras"), False),
        (Case("elu", "value", "f32", "authored+ort-cuda"), False),
        (Case("elu", "value", "f32", "ort-cpu"), False),
    ],
    ids=lambda item: item.id if isinstance(item, Case) else "",
)
def test_globs_choose_the_cases(case, yes):
    (deviation,) = read_deviations(GOOD, "here")
    assert concerns(deviation, case) is yes


@pytest.mark.parametrize(
    ("when", "facts", "yes"),
    [
        ({}, {}, True),
        ({"torch": ">=2.13,<2.14"}, {"torch": "2.13.0+cpu"}, True),
        ({"torch": "==2.13.0"}, {"torch": "2.13.0+cpu"}, True),
        ({"torch": ">=2.13"}, {"torch": "2.14.0.dev20260101"}, True),
        ({"torch": ">=2.13,<2.14"}, {"torch": "2.14.0"}, False),
        ({"torch": ">=2.13"}, {}, False),
        ({"torch": ">=2.13"}, {"torch": "unknown"}, False),
        ({"platform": ("linux", "win32")}, {"platform": "linux"}, True),
        ({"platform": ("linux", "win32")}, {"platform": "darwin"}, False),
        ({"platform": ("linux",)}, {}, False),
        ({"torch": ">=2.13", "platform": ("linux",)}, {"torch": "2.13.0", "platform": "darwin"}, False),
        ({"platform": ("linux",), "torch": ">=2.13"}, {"torch": "2.12.0", "platform": "linux"}, False),
    ],
)
def test_every_fact_must_hold(when, facts, yes):
    assert holds(known(when=when), facts) is yes


def test_until_ends_it_at_the_version_that_mends():
    ended = known(when={"keras": ">=3.15"}, until=">=3.17")
    assert holds(ended, {"keras": "3.16.9"})
    assert not holds(ended, {"keras": "3.17.0"})
    assert not holds(ended, {"keras": "4.0"})


def test_until_is_read_against_the_version_that_is_named_first():
    mended_in_keras = known(when={"cpu": ("avx",), "keras": ">=3.15", "tensorflow": ">=2.20"}, until=">=3.17")
    facts = {"cpu": "avx", "keras": "3.16", "tensorflow": "3.18"}
    assert holds(mended_in_keras, facts)
    assert not holds(mended_in_keras, {**facts, "keras": "3.17"})


@pytest.mark.parametrize(
    ("globs", "finding", "yes"),
    [
        ({}, {}, True),
        ({"tensors": ("d_*",)}, {"tensor": "d_x"}, True),
        ({"tensors": ("d_*",)}, {"tensor": "y"}, False),
        ({"regimes": ("edge", "tail")}, {"regime": "tail"}, True),
        ({"regimes": ("edge", "tail")}, {"regime": "huge"}, False),
        ({}, {"class_": "range"}, False),
        ({}, {"magnitude": 1.5}, False),
    ],
)
def test_a_finding_is_covered_in_all_respects_or_not_at_all(globs, finding, yes):
    seen = {"class_": "tail", "regime": "edge", "tensor": "y", "magnitude": 1.0, **finding}
    made = Finding(count=1, interval=("0x3f800000", "0x3f800000"), worst=None, **seen)
    assert covers(known(**globs), made, "f32") is yes


def test_the_registers_of_the_installed_plugins_can_be_read():
    register = load_plugins().deviations
    assert len({deviation.id for deviation in register}) == len(register)
