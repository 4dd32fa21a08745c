"""The packages that are published: what is in them, and that they work where nothing of the checkout is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actconform import __version__

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
CORE = ROOT
RUNTIME = ROOT / "plugins" / "actconform-onnxruntime"
DECLARED = {
    declared["name"]: declared
    for project in PROJECTS
    for declared in [tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]]
}
INSTALLED = ["actconform", "actconform-onnxruntime[default]"]

# Every process of the environment, workers included, notes which files of the checkout it opens.
WATCH = """import os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])
        if path.startswith({root!r} + os.sep) and not path.startswith({own!r} + os.sep):
            with os.fdopen(os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as log:
                print(path, file=log)
sys.addaudithook(watch)
"""

MODEL = """import onnx
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"])], "small", [x], [y])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "small.onnx")
"""


class Built(NamedTuple):
    folder: Path

    def wheel(self, project: Path) -> Path:
        return next(self.folder.glob(f"{module(project)}-*.whl"))

    def source(self, project: Path) -> Path:
        return next(self.folder.glob(f"{module(project)}-*.tar.gz"))


class Installation(NamedTuple):
    python: Path
    folder: Path
    log: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ACTCONFORM"))}
        command = [str(self.python), *arguments]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)


def module(project):
    name = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    return name.replace("-", "_")


def build(project, folder, *targets):
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), *targets]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    for project in PROJECTS:
        build(project, folder)
    return Built(folder)


@pytest.fixture(scope="module")
def installation(built, tmp_path_factory):
    """An environment with the built core and the plugin of ONNX Runtime, and of all else only what these require."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python, log = folder / "venv" / "bin" / "python", folder / "opened"
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    (site / "third_party.pth").write_text(f"{required(folder / 'third-party')}\n")
    (site / "sitecustomize.py").write_text(WATCH.format(root=str(ROOT), own=sys.prefix, log=str(log)))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    done = subprocess.run(
        [*command, "--find-links", str(built.folder), *INSTALLED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Installation(python, folder, log)


def required(folder):
    """Return the folder, with links to the packages that INSTALLED require in this environment, and to no others."""
    folder.mkdir()
    waiting, seen = [Requirement(text) for text in INSTALLED], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        if name in DECLARED:
            optional = DECLARED[name].get("optional-dependencies", {})
            texts = [*DECLARED[name]["dependencies"], *chain(*(optional[extra] for extra in requirement.extras))]
            waiting += [needed for needed in map(Requirement, texts) if not needed.marker or needed.marker.evaluate()]
            continue
        distribution = metadata.distribution(name)
        waiting += [
            needed
            for needed in map(Requirement, distribution.requires or ())
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {*extras, ""})
        ]
        for top in {path.parts[0] for path in distribution.files or ()} - {".."}:
            there = Path(str(distribution.locate_file(top)))
            if top.endswith((".pth", "__pycache__")) or (folder / top).is_symlink():
                continue
            (folder / top).symlink_to(there)
    return folder


@pytest.mark.parametrize("project", PROJECTS, ids=module)
def test_a_package_says_what_it_is_and_holds_its_licence_and_types(built, project):
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(built.wheel(project)) as wheel:
        names = set(wheel.namelist())
        about = Parser().parsestr(
            wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        )
        licence = wheel.read(next(name for name in names if name.endswith(".dist-info/licenses/LICENSE")))
    with tarfile.open(built.source(project)) as source:
        assert f"{module(project)}-{__version__}/LICENSE" in source.getnames()
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert f"{module(project)}/py.typed" in names
    assert about["Version"] == __version__
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Author"]
    assert about["Project-URL"]
    assert len(about["Summary"]) <= 150
    assert about.get_payload() == (project / "README.md").read_text(encoding="utf-8")
    python_versions = [text for text in about.get_all("Classifier") if re.search(r":: 3\.\d+$", text)]
    assert len(python_versions) == 3
    for requirement in map(Requirement, declared["dependencies"] if project != CORE else ()):
        if requirement.name.startswith("actconform"):
            assert __version__ in requirement.specifier
            assert "0.3.0" not in requirement.specifier, "another minor version may be another interface"


def test_the_citation_and_the_changelog_name_the_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(
        rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )


def test_the_source_of_the_core_builds_the_same_wheel(built, tmp_path):
    with tarfile.open(built.source(CORE)) as source:
        source.extractall(tmp_path, filter="data")
    build(tmp_path / f"actconform-{__version__}", tmp_path, "--target", "wheel")
    assert next(tmp_path.glob("*.whl")).read_bytes() == built.wheel(CORE).read_bytes()


def test_what_was_installed_runs_checks_and_verifies_without_the_checkout(installation):
    assert installation.run("-c", MODEL).returncode == 0
    version = installation.run("-m", "actconform", "--version")
    assert version.stdout.split()[-1] == __version__
    ran = installation.run("-m", "actconform", "run", "gelu-erf/value/f32/*", "--backend", "ort-cpu")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert "CONFORMS" in ran.stdout
    checked = installation.run("-m", "actconform", "check", "small.onnx")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    verified = installation.run("-m", "actconform", "golden", "verify", "gelu-erf", "--fast")
    assert verified.stdout.startswith("1 kernel,"), verified.stderr
    assert not installation.log.exists(), installation.log.read_text()


def test_what_is_not_installed_is_named_with_the_command_that_brings_it(installation):
    missing = installation.run("-m", "actconform", "golden", "verify", "gelu-erf")
    assert missing.returncode == 2
    assert 'pip install "actconform[golden]"' in missing.stderr


def test_a_file_of_the_checkout_would_be_seen(installation):
    assert installation.run("-c", f"open({str(ROOT / 'pyproject.toml')!r}).close()").returncode == 0
    assert installation.log.read_text().splitlines() == [str(ROOT / "pyproject.toml")]
    installation.log.unlink()
