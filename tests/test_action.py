"""The action's own steps, run as GitHub runs them: green where nothing is new, red where a fault is, green where the base branch has that fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
from ruamel.yaml import YAML
from softmax_model import softmax_model

ROOT = Path(__file__).parents[1]
ACTION = YAML(typ="safe").load(ROOT / "action.yml")
STEPS = ACTION["runs"]["steps"]
CALLED = YAML(typ="safe").load(ROOT / ".github" / "workflows" / "conform.yml")
CASE = "softplus/value/f32/authored+planted"
FAULT = "softplus-negative-nan"  # of plugins/actconform-faulty
PLUGIN = f"""
import os
from actconform import hookimpl
from actconform_faulty.injected import INJECTED
from actconform_onnxruntime.backend import OrtCpu

class Planted(OrtCpu):
    name = "planted"

    def load(self, artifact, dtype, level=""):
        program = super().load(artifact, dtype, level)
        planted = os.environ.get("PLANTED")
        return INJECTED["faulty-ort@{FAULT}"].inject(program, None) if planted else program

class Plugin:
    @hookimpl
    def actconform_backends(self):
        return [Planted]
"""


class Step(NamedTuple):
    """How a step ended."""

    code: int
    out: str


class Job:
    """A job of GitHub with one use of the action: its folders and files, and the cache, which outlives it."""

    def __init__(self, top: Path, inputs: dict[str, str], *, base_ref: str = "", **environment: str) -> None:
        self.inputs = {name: entry["default"] for name, entry in ACTION["inputs"].items()} | inputs
        self.base_ref, self.environment = base_ref, environment
        self.workspace, self.cache = top / "checkout", top / "cache"
        self.temp = top / "temp"
        shutil.rmtree(self.temp, ignore_errors=True)
        self.temp.mkdir()
        self.outputs: dict[str, str] = {}
        self.steps: dict[str, Step] = {}

    @property
    def summary(self) -> str:
        return (self.temp / "summary").read_text(encoding="utf-8")

    @property
    def folder(self) -> Path:
        return Path(self.outputs["folder"])

    @property
    def code(self) -> int:
        """Of the job: that of the first step that failed."""
        return next((step.code for step in self.steps.values() if step.code), 0)

    def value(self, text: str) -> str:
        """Return a value of `with` or `env` with its expressions replaced, of the forms that the action has."""
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: self._expression(match[1]), text)

    def _expression(self, text: str) -> str:
        for part in text.split(" || "):
            if part.startswith(("'", "format(")):
                return self._literal(part)
            names = {f"inputs.{name}": value for name, value in self.inputs.items()}
            names |= {f"steps.run.outputs.{name}": value for name, value in self.outputs.items()}
            names |= {"runner.temp": str(self.temp), "env.PIP_EXTRA_INDEX_URL": ""}
            if names[part]:
                return names[part]
        return ""

    def _literal(self, part: str) -> str:
        if part.startswith("'"):
            return part.strip("'")
        assert part == "format('{0}/actconform-baseline/{1}', runner.temp, inputs.name)"
        return f"{self.temp}/actconform-baseline/{self.inputs['name']}"

    def _wanted(self, step: dict, *, failed: bool) -> bool:
        ran = "run" in self.steps and self.steps["run"].code == 0
        kept = not self.inputs["baseline"] and not self.base_ref
        conditions = {
            "inputs.install == 'true'": not failed and self.inputs["install"] == "true",
            "inputs.baseline == ''": not failed and not self.inputs["baseline"],
            "${{ !cancelled() && steps.run.outcome == 'success' }}": ran,
            "${{ !cancelled() && steps.run.outcome == 'success' && inputs.baseline == '' && github.base_ref == '' }}": ran
            and kept,
        }
        return conditions[step["if"]] if "if" in step else not failed

    def run(self) -> Job:
        for number, step in enumerate(STEPS):
            if self._wanted(step, failed=bool(self.code)):
                name = step.get("id", str(number))
                self.steps[name] = self._shell(step) if "run" in step else self._action(step)
        return self

    def _shell(self, step: dict) -> Step:
        script = self.temp / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        (self.temp / "output").touch()
        files = {"GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary"}
        environment = {
            **os.environ,
            **{name: str(self.temp / file) for name, file in files.items()},
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "RUNNER_TEMP": str(self.temp),
            **self.environment,
            **{name: self.value(text) for name, text in step["env"].items()},
        }
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(
            bash, cwd=self.workspace, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        lines = (self.temp / "output").read_text(encoding="utf-8").splitlines()
        self.outputs |= dict(line.split("=", 1) for line in lines)
        return Step(done.returncode, done.stdout + done.stderr)

    def _action(self, step: dict) -> Step:
        """Do what actions/cache does, with a cache of this branch alone; an upload is only looked at."""
        path = Path(self.value(step["with"]["path"]))
        assert path.is_relative_to(self.temp)
        if "restore" in step["uses"] and self.cache.exists():
            shutil.copytree(self.cache, path)
        elif "save" in step["uses"]:
            shutil.rmtree(self.cache, ignore_errors=True)
            shutil.copytree(path, self.cache)
        return Step(0, "")


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty checkout; `python` is the one that runs the tests."""
    (tmp_path / "checkout").mkdir()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def planted(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install ort-cpu as `planted`, which has the fault where PLANTED is set."""
    info = top / "site" / "actconform_planted-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-planted\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[actconform]\nplanted = planted:Plugin\n")
    (info.parent / "planted.py").write_text(PLUGIN)
    path = os.pathsep.join(filter(None, (str(info.parent), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.mark.usefixtures("planted")
def test_a_run_is_red_for_a_new_fault_alone(top):
    inputs = {"patterns": f"{CASE}\n", "install": "false", "options": "--require authored+planted"}
    base = Job(top, inputs).run()
    assert base.code == 0, base.steps
    assert "no baseline" in base.steps["tell"].out
    assert sorted(path.name for path in (top / "cache").iterdir()) == ["report.json"]

    change = Job(top, inputs, base_ref="main", PLANTED="1").run()
    assert change.steps["run"].code == 0, change.steps["run"].out
    assert change.code == 1
    assert re.search(rf"^::error title={re.escape(CASE)}::critical ", change.steps["tell"].out, re.MULTILINE)
    assert change.summary == (change.folder / "comment.md").read_text(encoding="utf-8")
    assert change.summary.startswith("<!-- actconform: conformance -->\n## actconform, conformance: ")
    assert "<failure" in (change.folder / "new.xml").read_text(encoding="utf-8")
    assert {"junit.xml", "index.html", "report.json"} <= {path.name for path in change.folder.iterdir()}

    baseline = shutil.copytree(change.folder, top / "downloaded")
    later = Job(top, inputs | {"baseline": str(baseline)}, base_ref="main", PLANTED="1").run()
    assert later.code == 0, later.steps
    assert "::error" not in later.steps["tell"].out
    assert re.search("^::warning title=actconform::.* as in the baseline", later.steps["tell"].out, re.MULTILINE)
    assert "<skipped" in (later.folder / "new.xml").read_text(encoding="utf-8")


def test_a_model_of_a_toy_repository_is_red_for_a_new_fault_alone(top):
    onnx.save(softmax_model(), top / "checkout" / "model.onnx")
    inputs = {"model": "model.onnx", "install": "false", "options": "--samples 1", "name": "toy"}
    faulty = inputs | {"backends": "ort-cpu faulty-model@weight-f16"}
    assert Job(top, inputs).run().code == 0
    assert sorted(path.name for path in (top / "cache").iterdir()) == ["check.json"]

    change = Job(top, faulty, base_ref="main").run()
    assert change.code == 1
    assert "::error title=faulty-model@weight-f16::" in change.steps["tell"].out
    assert "title=ort-cpu" not in change.steps["tell"].out
    assert "## actconform, toy: " in change.summary

    baseline = shutil.copytree(change.folder, top / "downloaded")
    later = Job(top, faulty | {"baseline": str(baseline)}, base_ref="main").run()
    assert later.code == 0, later.steps
    assert "As in the baseline" in later.summary


@pytest.fixture
def pip(top: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `python` write down what pip is called with, and what is in a file of requirements, in place of calling it."""
    log = top / "pip.log"
    shim = top / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> "{log}"\ncat "${{@: -1}}" >> "{log}" 2> /dev/null || true\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    return log


def install(top: Path, **inputs: str) -> Step:
    return Job(top, inputs)._shell(STEPS[0])


def test_plugins_come_at_pinned_versions_and_requirements_after_them_at_their_own(top, pip):
    done = install(top, plugins="keras onnxruntime[cpu]", requirements="keras-nightly\n./dist/toy.whl --no-deps\n")
    assert done.code == 0, done.out
    first, second = pip.read_text(encoding="utf-8").split("-m\npip\ninstall\n")[1:]
    pinned = [
        str(ROOT / "constraints.txt"),
        str(ROOT),
        *(str(ROOT / "plugins" / f"actconform-{name}") for name in ("keras", "onnxruntime[cpu]")),
    ]
    assert first.splitlines()[2:] == ["-c", *pinned]
    assert second.splitlines()[-3:-1] == ["keras-nightly", "./dist/toy.whl --no-deps"]
    assert "-c" not in second.splitlines()


def test_without_requirements_nothing_more_is_installed(top, pip):
    assert install(top, requirements=" \n").code == 0
    assert pip.read_text(encoding="utf-8").count("install\n") == 1


def test_a_plugin_that_there_is_not_is_named(top, pip):
    done = install(top, plugins="kears")
    assert (done.code, pip.exists()) == (2, False)
    assert "there is no plugin 'kears'" in done.out


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"name": "../other"}, "name: wanted letters"),
        ({"name": ""}, "name: wanted letters"),
        ({"name": "a--b"}, "name: wanted letters"),
        ({"model": "a.onnx", "patterns": "relu/*"}, "patterns select cases"),
        ({"patterns": "nosuchkernel/*"}, "matches no case"),
        ({"patterns": "$(touch pwned) `touch pwned` ; touch pwned"}, "matches no case"),
        ({"model": "$(touch pwned);touch pwned"}, "touch pwned"),
        ({"patterns": "--help"}, "matches no case"),
    ],
    ids=["path", "unnamed", "dashes", "both", "typo", "shell", "shell-model", "option"],
)
def test_wrong_inputs_end_the_job_with_2_and_no_input_is_run_as_a_command(top, inputs, words):
    job = Job(top, {"install": "false"} | inputs).run()
    assert job.code == 2, job.steps
    assert words in job.steps["run"].out
    assert "tell" not in job.steps
    assert not list(top.rglob("pwned"))


def test_no_script_has_an_expression_in_it():
    for step in STEPS:
        assert "${{" not in step.get("run", "")
        assert step.get("shell", "bash") == "bash"


def test_the_cache_keeps_branches_apart():
    restore, save = (next(step for step in STEPS if kind in step.get("uses", "")) for kind in ("restore", "save"))
    assert restore["with"]["path"] == save["with"]["path"]
    assert restore["with"]["key"] == save["with"]["key"]
    assert save["with"]["key"].startswith("actconform:${{ inputs.name }}:${{ github.ref_name }}:")
    assert len(restore["with"]["restore-keys"].splitlines()) == 2
    for key in restore["with"]["restore-keys"].splitlines():
        assert key.endswith(":")  # a colon is in no branch's name, so that main finds nothing of main-2


def test_the_action_and_the_workflow_are_valid_by_the_published_schema():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions", ROOT / "action.yml"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_that_others_call_takes_the_inputs_of_the_action():
    inputs = CALLED["on" if "on" in CALLED else True]["workflow_call"]["inputs"]
    handed_on = CALLED["jobs"]["conform"]["steps"][-1]["with"]
    assert handed_on == {name: f"${{{{ inputs.{name} }}}}" for name in handed_on}
    assert set(handed_on) == set(ACTION["inputs"]) - {"install", "baseline"}  # of files that an earlier step made
    for name in handed_on:
        assert inputs[name] == {"type": "string", "default": ACTION["inputs"][name]["default"]}
    assert CALLED["permissions"] == {"contents": "read"}


def test_the_examples_of_the_document_are_workflows_with_inputs_that_there_are(tmp_path):
    texts = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(texts) == 2
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yml"
        path.write_text(text, encoding="utf-8")
        (job,) = YAML(typ="safe").load(path)["jobs"].values()
        assert set(job["with"]) <= set(CALLED["on" if "on" in CALLED else True]["workflow_call"]["inputs"])
        check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
