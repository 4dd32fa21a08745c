"""The workflows are valid, and every step of theirs is a make target that runs here too."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name):
    return YAML(typ="safe").load(ROOT / ".github" / "workflows" / name)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(name):
    return [step["run"] for step in steps(read(name)) if "run" in step]


def test_there_are_the_three():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "conform.yml", "nightly.yml"]  # the second is for others


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_valid_by_the_published_schema(path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["ci.yml", "nightly.yml"])
def test_every_command_is_a_make_target(name):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for command in commands(name):
        program, *words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "it", command.partition(">>")[0]))
        named = [word for word in words if "=" not in word and not word.startswith("-")]
        assert program == "make"
        assert len(named) == 1
        assert named[0] in targets


def test_ci_checks_and_tests_with_a_browser_and_emulators():
    assert commands("ci.yml") == [
        "make install",
        "make check",
        "make browser",
        "make emulators",
        "make test",
        "make docs",
        "make conform",
    ]


def test_each_backend_of_the_nightly_has_a_job_and_none_stops_another():
    strategy = read("nightly.yml")["jobs"]["part"]["strategy"]
    (wanted,) = re.findall(r"^NIGHTLY_BACKENDS := (.*)$", MAKEFILE, re.MULTILINE)
    assert strategy["matrix"]["backend"] == wanted.split()
    assert strategy["fail-fast"] is False


def test_the_collecting_job_runs_whatever_became_of_the_others():
    collect = read("nightly.yml")["jobs"]["collect"]
    assert collect["needs"] == ["part", "beside"]
    assert collect["if"] == "always()"
    assert "GITHUB_STEP_SUMMARY" in "".join(step.get("run", "") for step in collect["steps"])
    assert collect["steps"][-1]["with"]["path"] == "nightly/now"
    assert "schedule" in str(read("nightly.yml"))
