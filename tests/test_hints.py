"""What messages say to install exists: a package or an extra of this project, or something that this project requires."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actconform.plugin.loader import load_plugins

ROOT = Path(__file__).parents[1]
PROJECTS = {
    canonicalize_name(project["name"]): project
    for file in [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    for project in [tomllib.loads(file.read_text(encoding="utf-8"))["project"]]
}
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
HINT = re.compile(
    r"pip install (?P<options>(?:--?[\w-]+ )*)(?P<quote>[\"']?)(?P<name>[A-Za-z][\w.-]*)(?P<extras>\[[\w,-]+\])?"
)
OURS = re.compile(r"(?P<quote>[\"']?)\b(?P<name>actconform(?:-[a-z]+)?)(?P<extras>\[[\w,-]+\])")
# Extras of other projects, as their metadata has them.
EXTRAS_OF_OTHERS = {"tensorflow": {"and-cuda"}}


def required():
    """Return what core and plugins require, by name."""
    texts = [
        text
        for project in PROJECTS.values()
        for text in [*project["dependencies"], *chain(*project.get("optional-dependencies", {}).values())]
    ]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def hints(text):
    """Return name, extras and whether a shell would take them, of each package that `text` says to install."""
    return {
        (
            canonicalize_name(match["name"]),
            frozenset((match["extras"] or "")[1:-1].split(",")) - {""},
            bool(match["quote"]),
        )
        for match in [*HINT.finditer(text), *OURS.finditer(text)]
    }


def texts(file):
    """Return the texts of a file that has hints as they read when they are printed, what is filled in as {}."""
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)) if "pip install" in source else ():
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def all_hints():
    return sorted(
        {
            (str(file.relative_to(ROOT)), *hint)
            for file in SOURCES
            for text in texts(file)
            if "pip install" in text
            for hint in hints(text)
        },
        key=str,
    )


def wrong(name, extras, *, quoted):
    """Return what is wrong with a hint, or ""."""
    if extras and not quoted:
        return "zsh takes brackets for a pattern: quote them"
    if name in PROJECTS:
        missing = extras - set(PROJECTS[name].get("optional-dependencies", {}))
        return f"{name} has no extra {', '.join(missing)}" if missing else ""
    if name.startswith("actconform"):
        return f"there is no package {name}"
    if extras - EXTRAS_OF_OTHERS.get(name, set()):
        return f"{name} is not known to have {', '.join(extras)}"
    return "" if name in required() else f"nothing here requires {name}"


@pytest.mark.parametrize(("file", "name", "extras", "quoted"), all_hints())
def test_what_a_message_says_to_install_is_there(file, name, extras, quoted):
    assert not wrong(name, extras, quoted=quoted), file


def test_there_are_hints_of_every_kind():
    names = {name for _, name, _, _ in all_hints()}
    assert {"actconform", "actconform-keras", "actconform-onnxruntime", "matplotlib", "tensorflow"} <= names


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("pip install actconform[torch]", "quote"),
        ('pip install "actconform[goldens]"', "no extra goldens"),
        ("pip install actconform-torchh", "no package actconform-torchh"),
        ('pip install "actconform[torch]", "actconform[kers]"', "no extra kers"),
        ("pip install --upgrade onnxscrip", "nothing here requires onnxscrip"),
        ('pip install "tensorflow[gpu]"', "not known to have gpu"),
    ],
)
def test_a_hint_that_leads_nowhere_is_noticed(text, fault):
    assert any(fault in wrong(name, extras, quoted=quoted) for name, extras, quoted in hints(text))


def test_extras_of_the_core_bring_something_that_computes():
    """A plugin alone would be unavailable: its framework or runtime comes with it."""
    extras = PROJECTS["actconform"]["optional-dependencies"]
    for extra in ("keras", "torch", "ort", "jax", "openvino", "reference"):
        (plugin,) = map(Requirement, extras[extra])
        project = PROJECTS[canonicalize_name(plugin.name)]
        brought = [
            *project["dependencies"],
            *chain(*(project["optional-dependencies"][name] for name in plugin.extras)),
        ]
        names = {Requirement(text).name for text in brought} - {"actconform"}
        assert names & {"tensorflow", "torch", "onnxruntime", "jax", "openvino", "onnx"}, extra


def test_extras_bring_the_plugins_that_register_causes_of_their_routes():
    """Without them a deviation that is known would be new."""
    backends = load_plugins().backends
    for register in sorted(ROOT.glob("plugins/*/src/*/causes.toml")):
        own = register.parent.name
        causes = tomllib.loads(register.read_text(encoding="utf-8")).get("cause", [])
        for route in {route for cause in causes for route in cause.get("routes", ())} & set(backends):
            plugin = backends[route].__module__.partition(".")[0]
            extras = PROJECTS[plugin.replace("_", "-")].get("optional-dependencies", {})
            brought = {Requirement(text).name.replace("-", "_") for texts in extras.values() for text in texts}
            assert own in {plugin, *brought}, (register.parent.name, route)
