"""Which operators have rules, how one gets its own, and what is said of rules that fail."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from actconform.errors import GradientError, UnsupportedOperator
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.grad.rules.registry import RULES, ZERO_DERIVATIVE, rule


def parsed(graph: str, header: str = "") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 18{header}]> agraph {graph}')


def test_every_rule_is_of_an_operator_of_the_standard():
    assert len(RULES) >= 90
    named = {name for domain, name in RULES if domain == ""}  # a plugin may have added others
    assert not named & ZERO_DERIVATIVE
    assert [name for name in (*named, *ZERO_DERIVATIVE) if not onnx.defs.has(name, 26, "")] == []


def test_every_rule_is_named_in_a_test():
    files = [*Path(__file__).parent.glob("*.py"), Path(__file__).parents[2] / "test_half.py"]
    texts = "".join(path.read_text("utf-8") for path in files)
    ours = [
        name for (_, name), function in RULES.items() if function.__module__.startswith("actconform.onnx.grad.rules.")
    ]
    untested = [name for name in ours if not re.search(rf"\b{name}\b", texts)]
    assert not untested, f"no test in tests/onnx_graphs/grad/rules holds the gradient of {untested} to another library"


def test_an_operator_has_one_rule():
    for taken in ("Mul", "Shape"):
        with pytest.raises(ValueError, match=f"two gradient rules for operator '{taken}'"):
            rule(taken)(lambda *_: [])
    with pytest.raises(ValueError, match="'Mul'"):
        rule("Mul", domain="ai.onnx")(lambda *_: [])


@pytest.fixture
def own_rule():
    """Give an operator of a domain of one's own a rule, for one test."""

    def give(function, *, op_type="Squash", domain="other"):
        rule(op_type, domain=domain)(function)
        given.append((domain, op_type))

    given = []
    yield give
    for key in given:
        del RULES[key]


SQUASH = "(double[2] x, double[2] t) => (double[2] y) { u = Neg(x) [it] z = other.Squash <by = 2.0> (u, t) y = Exp(z) }"


def test_an_operator_of_another_domain_may_have_a_rule(own_rule):
    seen = []

    def squash(b, node, g):
        seen.append((node.domain, node.op_type, node.attributes, node.wanted))
        return [b.Mul(g[0], node.attributes["by"])]

    own_rule(squash)
    made = add_gradients(parsed(SQUASH, header=', "other": 1'), ["x"], keep_outputs=False)
    assert seen == [("other", "Squash", {"by": 2.0}, (True, False))]

    class Squash(OpRun):
        op_domain = "other"

        def _run(self, x, t, by):
            return (by * x + t,)

    x, t, g = np.array([0.5, 1.0]), np.array([1.0, -1.0]), np.array([1.0, 2.0])
    (dx,) = ReferenceEvaluator(made, new_ops=[Squash]).run(None, {"x": x, "t": t, "ct_y": g})
    np.testing.assert_allclose(dx, -2 * g * np.exp(t - 2 * x))
    with pytest.raises(ValueError, match="two gradient rules for operator 'Squash' of domain 'other'"):
        own_rule(squash)


def test_a_rule_of_one_domain_is_none_of_another(own_rule):
    own_rule(lambda b, node, g: [g[0]], domain="elsewhere")
    with pytest.raises(UnsupportedOperator, match=r'rule\("Squash", domain="other"\)'):
        add_gradients(parsed(SQUASH, header=', "other": 1'), ["x"])


def returns_nothing(b, node, g):
    b.Neg(g[0])


def raises(b, node, g):
    raise KeyError("by")


def asks_for_an_operator_that_there_is_not(b, node, g):
    return [b.Negg(g[0])]


def returns_a_name(b, node, g):
    return g[0]


def returns_a_number(b, node, g):
    return [0.0]


def makes_no_node(b, node, g):
    return ["nowhere"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (returns_nothing, "returned None: a list is expected"),
        (returns_a_name, "a list is expected, a name or None for each input"),
        (returns_a_number, "returned [0.0]: a list is expected"),
        (raises, "failed: KeyError: 'by'"),
        (asks_for_an_operator_that_there_is_not, "failed: AttributeError: ONNX opset 18 has no operator Negg"),
    ],
)
def test_a_rule_that_fails_is_named(own_rule, wrong, words):
    own_rule(wrong)
    with pytest.raises(GradientError, match=re.escape(words)) as error:
        add_gradients(parsed(SQUASH, header=', "other": 1'), ["x"])
    assert f"test_registry.{wrong.__name__} of operator Squash (domain other" in str(error.value)
    assert "at node it" in str(error.value)


def test_a_rule_that_returns_what_there_is_not_makes_no_model(own_rule):
    own_rule(makes_no_node)
    with pytest.raises(GradientError, match=r"no valid ONNX model.*nowhere"):
        add_gradients(parsed(SQUASH, header=', "other": 1'), ["x"])
