"""The package of a new plugin, written from the templates in this folder."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Literal

from actconform._version import __version__
from actconform.plugin.hookspecs import INTERFACE

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["framework", "runtime"]


def distribution(name: str) -> str:
    """Return what the package of backend `name` is called: "actconform-NAME"."""
    return f"actconform-{name}"


def module(name: str) -> str:
    """Return what the package of backend `name` is imported as."""
    return distribution(name).replace("-", "_")


def write_package(name: str, kind: Kind, folder: Path) -> list[Path]:
    """Write the package of a backend into `folder`, which it makes, and return the files.

    `name` is of lower case words joined by hyphens. Raises FileExistsError where the folder is there, before anything is
    written, and OSError where it cannot be made.
    """
    words = {
        "name": name,
        "kind": kind,
        "distribution": distribution(name),
        "module": module(name),
        "stem": "".join(word.capitalize() for word in name.split("-")),
        "route": name if kind == "framework" else f"authored+{name}",
        "fact": "numpy",
        "actconform": __version__,
        "version": "0.1.0",  # of the package itself
        "interface": str(INTERFACE),
    }
    source = f"src/{module(name)}"
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{source}/__init__.py": "plugin.py",
        f"{source}/backend.py": f"{kind}.py",
        f"{source}/causes.toml": "causes.toml",
        "tests/test_contract.py": "test_contract.py",
    }
    folder.mkdir(parents=True)
    written = []
    for path, template in templates.items():
        text = (files(__name__) / f"{template}.template").read_text(encoding="utf-8")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(text).substitute(words), encoding="utf-8")
        written.append(target)
    return written
