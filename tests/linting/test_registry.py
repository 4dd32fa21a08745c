"""The rules themselves, what is left out by code and node, and rules of plugins."""

from __future__ import annotations

import re

import pytest
from linted import findings_of, linted_model
from small_models import made, numbers

import actconform
from actconform.errors import PluginError, UsageError
from actconform.linting.registry import OWN_RULES, Ignored, parsed_ignores
from actconform.linting.session import rule_findings
from actconform.plugin.loader import load_plugins


def test_every_rule_has_a_code_of_its_own_a_reason_with_a_formula_and_a_hint():
    assert len({rule.code for rule in OWN_RULES}) == len({rule.name for rule in OWN_RULES}) == len(OWN_RULES) >= 20
    for rule in OWN_RULES:
        assert re.fullmatch(r"AC[12][0-9]{2}", rule.code)
        assert re.search(r"[=<>(]|\d", rule.why), rule.code
        assert rule.why.endswith(".")
        assert rule.hint.rstrip("`").endswith("."), rule.code


def finding():
    weights = {"w": numbers(1, 4, 1)}
    (only,) = findings_of(
        made("(float[n, 4] x) => (float[n, 1] y) { g = MatMul (x, w)  y = Softmax <axis = -1> (g) }", weights)
    )
    return only


def test_findings_are_left_out_by_code_and_by_the_glob_of_a_node():
    assert Ignored("AC101").covers(finding())
    assert Ignored("AC101", "y*").covers(finding())
    assert not Ignored("AC101", "head/*").covers(finding())
    assert not Ignored("AC102").covers(finding())


@pytest.mark.parametrize(
    ("text", "words"), [("AC001", "no rule"), ("AC101:", "no glob"), ("softmax", "no rule"), ("", "no rule")]
)
def test_a_code_that_no_rule_has_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parsed_ignores([text], OWN_RULES, "--ignore")


def test_codes_are_taken_in_any_case():
    assert parsed_ignores(["ac101:/x/*"], OWN_RULES, "--ignore") == [Ignored("AC101", "/x/*")]


def rule(code="ZZ101", check=lambda model: [], **more):
    words = {"name": "many-nodes", "severity": "note", "why": "n > 0.", "hint": "Split it.", **more}
    return actconform.LintRule(code=code, check=check, **words)


def plugin(*rules):
    class Plugin:
        @actconform.hookimpl
        def actconform_lint_rules(self):
            return rules

    return Plugin()


def test_a_plugin_adds_a_rule():
    def many(model):
        for node in model.main.nodes:
            yield model.at(node, f"one of {len(model.main.nodes)} nodes")

    rules = load_plugins([plugin(rule(check=many))], []).lint_rules
    model = linted_model(made("(float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }"))
    (found,) = rule_findings(rules, model)
    assert (found.code, found.node, found.message) == ("ZZ101", "y", "one of 1 nodes")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("no rule", "wanted actconform.LintRule"),
        (rule("z1"), "capital letters and three digits"),
        (rule("AC999"), "AC is for the rules of actconform"),
        (rule(severity="fatal"), "error, warning, note"),
        (rule(needs="--input"), "wanted --loss, --targets, --inputs, --runtime"),
        (rule(check="no function"), "wanted functions"),
        (rule(name="Two Words"), "lower case"),
    ],
)
def test_what_is_no_rule_breaks_its_plugin_in_words(item, words):
    (broken,) = load_plugins([plugin(item)], []).broken
    assert words in broken.message


def test_two_plugins_cannot_share_a_code():
    with pytest.raises(PluginError, match="ZZ101"):
        load_plugins([plugin(rule()), plugin(rule())], [])


def test_a_rule_that_fails_is_named():
    def fails(model):
        raise ValueError("no such thing")

    model = linted_model(made("(float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }"))
    with pytest.raises(UsageError, match=r"ZZ101 .*no such thing"):
        list(rule_findings([rule(check=fails)], model))
