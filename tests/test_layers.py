"""The order of the house: who may import whom, no framework in the core, and files that one person can read at once."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINTER = Path(sys.executable).with_name("lint-imports")
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
TESTS = sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")])
FRAMEWORKS = {"torch", "tensorflow", "keras", "onnxruntime", "tf2onnx", "onnxscript", "jax", "jax2onnx", "openvino"}
EVERY_MODULE = """
import importlib, json, pkgutil, sys
import actconform
names = [found.name for found in pkgutil.walk_packages(actconform.__path__, "actconform.")]
for name in names:
    importlib.import_module(name)
from actconform.plugin.loader import load_plugins
load_plugins()
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""


def contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_the_contracts_between_the_rooms_are_kept():
    done = subprocess.run([LINTER, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in contracts():
        assert f"{contract['name']} KEPT" in done.stdout
    assert f"Contracts: {len(contracts())} kept, 0 broken" in done.stdout


def test_a_contract_that_is_broken_is_noticed(tmp_path: Path):
    # the wrong way round on purpose: the command line is at the right end
    config = """
[importlinter]
root_package = actconform

[importlinter:contract:1]
name = upside down
type = forbidden
source_modules = actconform.cli
forbidden_modules = actconform.run.scheduler
"""
    (tmp_path / "wrong.ini").write_text(config)
    done = subprocess.run(
        [LINTER, "--no-cache", "--config", tmp_path / "wrong.ini"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "upside down BROKEN" in done.stdout


def test_importing_all_of_the_core_and_loading_all_plugins_imports_no_framework():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    modules = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in ROOT.glob("src/**/*.py")}
    assert {name.removesuffix(".__init__") for name in modules} == {"actconform", *said["imported"]}
    assert not FRAMEWORKS & {name.partition(".")[0] for name in said["loaded"]}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_has_at_most_600_lines_and_its_functions_60(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} in {path}"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_file_has_at_most_600_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def test_there_are_no_rooms_without_a_name():
    assert not [path for path in SOURCES if path.stem in ("utils", "helpers", "misc", "common")]


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Return those of `modules` that a source file imports anywhere: at its head, in a function, for annotations."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return imported & modules


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules of which each imports a next one, the last the first; none where there are none."""
    rest = dict(imports)
    while leaves := [name for name, read in rest.items() if not read & rest.keys()]:
        for name in leaves:
            del rest[name]
    path = [min(rest)] if rest else []
    while path and path.count(path[-1]) == 1:
        path.append(min(rest[path[-1]] & rest.keys()))
    return path[path.index(path[-1]) :] if path else []


@pytest.mark.parametrize("plugin", sorted(ROOT.glob("plugins/*")), ids=lambda path: path.name)
def test_the_modules_of_a_plugin_import_each_other_in_no_circle(plugin: Path):
    files = {path.stem: path for path in plugin.glob("src/*/*.py") if path.stem != "__init__"}
    package = next(plugin.glob("src/*")).name
    modules = {f"{package}.{stem}" for stem in files}
    assert circle({f"{package}.{stem}": imports_of(path, modules) for stem, path in files.items()}) == []


def test_a_circle_is_noticed():
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]


# Words that stand for a thing without naming it. What has a name in the field is called by it.
PRONOUNS = {
    "one", "other", "others", "mine", "own", "whole", "found", "said", "told", "given", "asked", "known", "heard",
    "held", "seen", "kept", "taken", "made", "there", "here", "beside", "what", "which", "why"
}  # fmt: skip
SHARE = 0.4  # percent of the names bound in src and plugins/*/src; it only goes down


def bound_names(path: Path) -> list[str]:
    """Return the names of the variables, arguments and functions that a file binds, as often as it binds them."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                names.append(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.append(name)
    return names


def test_the_share_of_pronouns_among_the_names_only_goes_down():
    names = {path.relative_to(ROOT): bound_names(path) for path in SOURCES}
    pronouns = {path: [name for name in bound if name.strip("_") in PRONOUNS] for path, bound in names.items()}
    share = 100 * sum(map(len, pronouns.values())) / sum(map(len, names.values()))
    worst = sorted(pronouns, key=lambda path: len(pronouns[path]), reverse=True)[:10]
    files = [f"{path}: {len(pronouns[path])}, {', '.join(sorted(set(pronouns[path])))}" for path in worst]
    assert round(share, 2) <= SHARE, "\n".join(
        [f"{share:.2f} % of the names say nothing, {SHARE} % did; most of them:", *files]
    )
    assert share > SHARE - 0.1, f"only {share:.2f} % of the names say nothing now: lower SHARE to that"


def test_bound_names_are_those_of_variables_arguments_and_functions(tmp_path: Path):
    (tmp_path / "source.py").write_text(
        "def f(a, *b, c=1, **d):\n    (e, g), h.i = x\n    for j in x: k: int = 0\nasync def l(): ...\n"
    )
    assert sorted(bound_names(tmp_path / "source.py")) == list("abcdefgjkl")


# Functions called alike in two modules today. Rename one of them and take the name off; none comes on.
ALIKE = {"compare", "shown", "table"}  # fmt: skip
ORACLES = ("oracle/arb/", "oracle/float64/")  # each computes the same kernels, under their names


def public_names() -> dict[str, list[str]]:
    """Return where the public classes and functions at the top of src's modules stand, by name, the line's commands left out."""
    places: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("src/**/*.py")):
        module = path.relative_to(ROOT / "src" / "actconform").as_posix()
        if path.stem.endswith("standalone"):  # a text that is copied into programs, which call what it defines
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            own_program = module.startswith("cli/") or module.endswith(
                "standalone.py"
            )  # the latter is copied for users
            if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not own_program):
                places.setdefault(node.name, []).append(module)
    return {name: modules for name, modules in places.items() if not name.startswith("_") and name != "main"}


def test_no_two_public_names_are_alike():
    places = public_names()
    assert "Case" in places
    alike = {name: modules for name, modules in places.items() if len(modules) > 1}
    new = {
        name: modules for name, modules in alike.items() if not all(module.startswith(ORACLES) for module in modules)
    }
    assert {name: new[name] for name in new.keys() - ALIKE} == {}, "call each by what sets it apart"
    assert ALIKE - new.keys() == set(), "these are called apart now: take them off ALIKE"
