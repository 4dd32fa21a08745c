"""What documents say of the house is so: its picture, paths, modules, tests, commands, links and numbers."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from documents import TOP, blocks

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.onnx.grad import rules
from actconform.onnx.grad.rules.registry import RULES

WRITTEN = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    *sorted(TOP.glob("docs/**/*.md")),
    *sorted(TOP.glob("plugins/*/README.md")),
]
READ = [path for path in WRITTEN if path.name != "known-deviations.md"]  # generated
PLACES = (".", "src/actconform", "src/actconform/onnx/grad/rules", "src/actconform/verdict/causes", "plugins")
MADE = {"quick_gelu.py", "repro.py", "rounding.py", "test_onnxruntime_operators.py"}  # by who follows a document
each = pytest.mark.parametrize("document", READ, ids=lambda path: path.relative_to(TOP).as_posix())


def text_of(document):
    return document.read_text("utf-8")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_picture_of_the_packages_is_the_contract(name):
    contract = tomllib.loads(text_of(TOP / "pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    (picture,) = [text for language, text in blocks(TOP / name) if language == "text" and text.startswith("┌")]
    rows = [line.split("│")[1].split() for line in picture.splitlines() if line.startswith("│")]
    assert rows == [re.split(r" [|:] ", layer) for layer in contract["layers"]]


def test_contributing_begins_with_the_plugin_tutorial_and_readme_links_every_guide():
    assert re.findall(r"\]\(([^)]*)\)", text_of(TOP / "CONTRIBUTING.md"))[0] == "docs/write-a-plugin.md"
    linked = re.findall(r"\]\(([^)#]*)", text_of(TOP / "README.md"))
    guides = {path.relative_to(TOP).as_posix() for path in TOP.glob("docs/add-*.md")}
    assert {"CONTRIBUTING.md", "docs/architecture.md", "docs/write-a-plugin.md", *guides} <= set(linked)
    assert len(guides) == 3


def test_contributing_names_every_target_of_make_and_no_other():
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of(TOP / "Makefile"), re.MULTILINE))
    (table,) = re.findall(r"^## How to run what\n(.*?)^## ", text_of(TOP / "CONTRIBUTING.md"), re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`make ([a-z-]+)", table)) | set(re.findall(r"`(nightly-[a-z]+)`", table))
    assert named == targets


@each
def test_paths_that_a_document_names_exist(document):
    for path in re.findall(r"`([\w*./-]+/|[\w*./-]+\.py)`", text_of(document)):
        if "NAME" in path or Path(path).name in MADE or "_mine" in path or not re.search(r"[a-z]", path):
            continue
        tops = [TOP / place for place in PLACES] + [document.parent]
        assert any(next(top.glob(path.strip("/")), None) for top in tops if path.strip("/")), path


@each
def test_modules_that_a_document_names_exist(document):
    for module in set(re.findall(r"\bactconform((?:\.[a-z_0-9]+)+)", text_of(document))):
        path = TOP / "src/actconform" / module[1:].replace(".", "/")
        if module.endswith((".toml", ".git")) or path.is_dir() or path.with_suffix(".py").is_file():
            continue
        owner = next(p for p in (path.parent.with_suffix(".py"), path.parent / "__init__.py") if p.is_file())
        assert re.search(rf"\b{path.name}\b", text_of(owner)), f"actconform{module}"


@each
def test_tests_that_a_document_names_exist(document):
    named = set(re.findall(r"`(test_\w+)`", text_of(document)))
    done = subprocess.run(
        ["grep", "-rhoE", r"def test_\w+", TOP / "tests", TOP / "plugins"], capture_output=True, text=True, check=True
    )
    assert named <= {line.removeprefix("def ") for line in done.stdout.splitlines()}


@each
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(file), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_readme_counts_kernels_models_and_rules_right():
    readme = " ".join(text_of(TOP / "README.md").split())
    models = sum(PUBLISHED not in model.name for model in networks())
    ours = [name for (_, name), rule in RULES.items() if rule.__module__.startswith(f"{rules.__name__}.")]
    assert f"of {len(UNARY + ROWS)} activation kernels" in readme
    assert f"{models} reference models" in readme
    assert f"{len(ours)} operators have rules" in readme
