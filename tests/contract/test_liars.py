"""The contract finds each lie, says in which clause, and accuses nobody who is honest."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path

import pytest

from actconform.contract import clauses, evidence
from actconform.contract.check import check_contract
from actconform.contract.clauses import PROMISES
from actconform.contract.evidence import Setting
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins

HERE = Path(__file__).parent
ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="sets x86-64's rounding")
WITH_TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture
def ask(monkeypatch):
    """Hold a backend of liars.py against the contract, about relu and one kernel that all refuse."""
    monkeypatch.syspath_prepend(str(HERE))

    def asked(name, *subjects):
        from liars import Plugin

        setting = Setting(
            subjects=subjects or ("relu", "celu"), env={"PYTHONPATH": str(HERE)}, timeout=30, plugins=["liars:Plugin"]
        )
        return check_contract(name, setting, load_plugins([Plugin]))

    return asked


LIES = [
    (
        "raises-later",
        "supports",
        "relu/value/f32/raises-later: supports says yes, it is built, and the call raised Zero",
    ),
    ("knows-all", "supports", "contract-unknown/value/f32/knows-all: answers a kernel that it cannot know"),
    ("too-modest", "supports", "relu/value/f16/too-modest: supports says no, and it is built and answers"),
    ("raises-other", "errors", "celu/value/f32/raises-other: build raised KeyError: 'celu'"),
    ("silent", "errors", "relu/value/bf16/silent: refused without a reason"),
    ("dies", "errors", "relu/value/bf16/dies: the contract-watched worker ended with exit code 7"),
    ("refuses", "answers", "answered none of 12 cases: not today"),
    ("other-name", "names", "relu/value/f32/other-name: y: output 'y' is missing; got ['out']"),
    ("other-shape", "shapes", "relu/value/f32/other-shape: y: shape [8], expected [3248]"),
    ("other-dtype", "dtypes", "relu/value/f16/other-dtype: y: dtype float32, expected float16"),
    ("mutates", "mutation", "relu/value/f32/mutates: x: seen in"),
    ("wavers", "determinism", "relu/value/f32/wavers: y: seen in"),
    ("of-its-process", "determinism", "relu/value/f32/of-its-process: another process gives other outputs"),
    ("bad-close", "close", "relu/value/f32/bad-close: close raised RuntimeError: cannot free"),
    ("numbers-as-facts", "facts", "'threads' is 1: wanted str to str"),
    ("poor-facts", "facts", "no threads among process"),
    ("draws", "state", "relu/value/f32/draws: forward: numpy's random state changed"),
    ("hides-errors", "state", "build: numpy's handling of floating-point errors: {'divide': 'warn', 'over': 'warn'"),
    pytest.param("rounds-up", "state", "forward: rounding: to nearest before, up after", marks=ON_X86),
    pytest.param(
        "flushes", "state", "forward: subnormal results: kept before, flushed to zero after", marks=WITH_TORCH
    ),
    pytest.param("flushes-at-once", "state", "facts: subnormal inputs: kept before, flushed to zero", marks=WITH_TORCH),
    pytest.param("default-dtype", "state", "facts: torch's default dtype: torch.float32 before", marks=WITH_TORCH),
    ("elsewhere", "placement", "Relu on CPU: asked for Accelerator"),
    ("untold", "placement", "claims that all nodes run on Accelerator, and no program says where its nodes ran"),
    ("unfuses", "survival", "y has other bits where positive, y are marked as outputs"),
    ("misnames", "survival", "level nothing: fused_7 survives, and no node of the graph gives a tensor of that name"),
    ("names-nothing", "survival", "surviving_tensors returned None: wanted a tuple of names"),
    (
        "loads-anything",
        "supports",
        "contract-unknown/value/f32/authored+loads-anything: answers a graph that it cannot",
    ),
]


@pytest.mark.parametrize(("name", "clause", "words"), LIES)
def test_a_lie_is_found_in_its_clause_and_no_other(ask, name, clause, words):
    checked = ask(name)
    broken = {one.name: one for one in checked.clauses if one.state == "broken"}
    said = "\n".join(broken[clause].broken) if clause in broken else broken
    assert words in said
    assert set(broken) == {clause}
    assert broken[clause].fix
    assert not checked.conforms


@pytest.mark.parametrize(
    ("name", "answered"), [("honest", 6), ("honest-runtime", 3), ("right-place", 3), ("fusing", 3)]
)
def test_the_honest_keep_the_contract(ask, name, answered):
    checked = ask(name)
    assert [clause.name for clause in checked.clauses] == list(PROMISES)
    assert {clause.name: clause.broken for clause in checked.clauses if clause.broken} == {}
    assert checked.conforms
    assert (checked.cases, checked.answered) == (12, answered)
    needless = [clause.name for clause in checked.clauses if clause.state == "not applicable"]
    assert needless == {"right-place": ["survival"], "fusing": ["placement"]}.get(name, ["placement", "survival"])
    assert sum(count for _, count in checked.refused) == 12 - answered


def test_models_are_asked_too(ask):
    checked = ask("honest", "linear-stack", "relu")
    assert checked.cases == 12
    assert checked.refused == (("honest builds no models", 6),)


def test_supports_must_answer_at_once(ask, monkeypatch):
    monkeypatch.setattr(clauses, "SLOW", 0.1)
    broken = next(one for one in ask("slow", "relu").clauses if one.state == "broken")
    assert broken.name == "supports"
    assert any(breach.startswith("relu/value/f32/slow: supports took 0.") for breach in broken.broken)


def test_facts_that_are_poor_or_of_one_process_are_told(ask):
    (broken,) = [one for one in ask("poor-facts", "relu").clauses if one.state == "broken"]
    assert "no version of anything" in broken.broken
    assert any(text.startswith("process is number ") and "in the next" in text for text in broken.broken)


def test_where_nothing_is_answered_what_asks_for_answers_does_not_apply(ask):
    states = {clause.name: clause.state for clause in ask("refuses", "relu").clauses}
    assert {states[name] for name in ("names", "shapes", "dtypes", "mutation", "placement")} == {"not applicable"}


def test_a_process_that_dies_costs_its_cases_and_after_some_the_rest(ask, monkeypatch):
    checked = ask("dies", "relu")
    errors = next(one for one in checked.clauses if one.name == "errors")
    assert (checked.cases, checked.answered, len(errors.broken)) == (6, 4, 2)
    monkeypatch.setattr(evidence, "DEATHS", 1)
    checked = ask("dies", "relu")
    errors = next(one for one in checked.clauses if one.name == "errors")
    assert checked.cases < 6
    assert errors.broken[-1] == "its process died again and again: the remaining cases were not run"


def test_what_is_not_installed_is_unavailable_with_the_mend_and_no_pass(ask):
    checked = ask("not-installed")
    assert checked.unavailable == "honestlib is not installed: pip install honestlib"
    assert checked.clauses == ()
    assert not checked.conforms


@pytest.mark.parametrize(
    ("name", "subjects", "words"),
    [
        ("honnest", (), "no installed plugin gives a backend 'honnest'; did you mean honest"),
        ("no-start", (), "backend no-start cannot be started: the no-start worker ended with exit code 3"),
        ("honest", ("relu-nine",), "no kernel or model is called relu-nine"),
        ("faulty-torch", (), "faulty-torch runs as one of its variants alone"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(ask, name, subjects, words):
    with pytest.raises(UsageError, match=words):
        ask(name, *subjects)
