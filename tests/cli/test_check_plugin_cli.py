"""`actconform check-plugin`: each clause with ok, broken or not applicable, what to do, and the exit code."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

LIARS = Path(__file__).parents[1] / "contract"


@pytest.fixture(autouse=True)
def liars(install, monkeypatch):
    monkeypatch.syspath_prepend(str(LIARS))
    monkeypatch.setenv("PYTHONPATH", str(LIARS), prepend=os.pathsep)
    install(liars="liars:Plugin", wobbly="wobbly:Plugin")


def test_a_kept_contract_ends_with_0_and_says_what_is_refused_and_why(cli):
    said = cli("check-plugin", "honest", "--subject", "relu", "--subject", "celu")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "honest  framework  actconform-stand-in 1.0"
    assert "✓ supports     ok              answers at once, and keeps its word" in lines
    assert "· placement    not applicable  claims no execution provider" in lines
    assert any(line.startswith("6 of 12 cases answered in ") for line in lines)
    assert "      6 UNSUPPORTED  no NAME here" in lines
    assert lines[-1] == "KEEPS THE CONTRACT"
    assert "what to do" not in said.out


def test_a_broken_clause_ends_with_1_and_says_what_to_do(cli):
    said = cli("check-plugin", "other-name", "--subject", "relu")
    assert said.code == 1
    assert "✗ names        broken          6 breaches" in said.out  # one is missing and one is too many, in each dtype
    assert "    relu/value/f16/other-name: y: output 'y' is missing; got ['out']" in said.out
    assert '    what to do: return "y", of a model' in said.out
    assert said.out.splitlines()[-1] == "BREAKS THE CONTRACT"


def test_backends_of_the_settings_are_asked_under_their_settings(cli, tmp_path, wheels):
    script = tmp_path / "relu.py"
    script.write_text(
        "import sys, pathlib, numpy as np\n"
        "given, taken = map(pathlib.Path, sys.argv[2:])\n"
        "np.save(taken / 'y.npy', np.maximum(np.load(given / 'x.npy'), 0))\n"
    )
    (tmp_path / "actconform.toml").write_text(
        '[backends."wobbly@1"]\nrequirements = ["wobble==1.0"]\n'
        f"[backends.mine]\ncommand = '{sys.executable} {script} {{model}} {{inputs}} {{outputs}}'\n"
    )
    said = cli("check-plugin", "wobbly@1", "--subject", "relu")
    assert "  environment: wobble 1.0" in said.out.splitlines()
    assert "making an environment with wobble==1.0" in said.err
    said = cli("check-plugin", "mine", "--subject", "relu")
    assert said.out.splitlines()[0].startswith("mine  runtime  ")
    assert "answered in" in said.out


def test_the_screen_shows_a_few_breaches_and_json_all(cli):
    shown = cli("check-plugin", "other-name", "--subject", "relu")
    assert "    and 1 more, see --json" in shown.out
    said = cli("check-plugin", "other-name", "--subject", "relu", "--json")
    assert said.code == 1
    told = json.loads(said.out)
    assert told["kept"] is False
    assert [len(clause["broken"]) for clause in told["clauses"] if clause["state"] == "broken"] == [6]


def test_what_is_not_installed_is_unavailable_with_the_mend(cli):
    said = cli("check-plugin", "not-installed")
    assert said.code == 1
    assert said.out.splitlines()[-1] == "UNAVAILABLE  honestlib is not installed: pip install honestlib"


def test_an_unknown_backend_is_a_mistake_of_the_users(cli):
    said = cli("check-plugin", "honnest")
    assert said.code == 2
    assert "no installed plugin gives a backend 'honnest'; did you mean honest" in said.err


def test_the_settings_of_the_backend_hold(cli, tmp_path):
    (tmp_path / "actconform.toml").write_text('[backends.honest]\npython = "/no/such/python"\n')
    said = cli("check-plugin", "honest", "--subject", "relu")
    assert said.code == 2
    assert "cannot start the honest worker" in said.err
