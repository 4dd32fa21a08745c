"""What of a process results depend on: the versions that must be equal everywhere, and the machine that must be alike for one backend."""

from __future__ import annotations

import platform
from importlib import metadata

import msgspec
from packaging.requirements import Requirement

from actconform._version import __version__
from actconform.machine.cpu import cpu_features, cpu_name
from actconform.plugin.loader import installed, plugin_versions
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types.json import digest_of_json, finite
from actconform.workers.code import sources_digest

DIGITS = 12  # of a digest, in a message


class Installation(msgspec.Struct, frozen=True):
    """What a process has installed, name to version, and the facts of its machine that every backend's process reports."""

    versions: dict[str, str]
    machine: dict[str, str]


def installation() -> Installation:
    """Return the installation of this process; packages, goldens and the code of actconform and its plugins are in `versions`.

    Raises GoldenError where the goldens' manifest cannot be read.
    """
    required = [Requirement(text) for text in metadata.requires("actconform") or ()]
    packages = ["distributed", *(requirement.name for requirement in required if requirement.marker is None)]
    modules = ["actconform", *(point.module for point in installed())]
    return Installation(
        versions={
            **plugin_versions(),
            "actconform": __version__,  # of the code; the metadata of an editable installation may be older
            "Python": platform.python_version().rpartition(".")[0],
            **{name: metadata.version(name) for name in packages},
            "goldens": digest_of_json(finite(read_manifest(golden_dir())))[:DIGITS],
            "code": sources_digest(modules)[:DIGITS],
        },
        machine={
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpu": cpu_name(),
            "cpu_features": " ".join(cpu_features()) or "none",
        },
    )


def named_difference(where: str, there: dict[str, str], elsewhere: str, here: dict[str, str]) -> str:
    """Return what is not equal in two places, "WHERE has NAME VERSION, ELSEWHERE has NAME VERSION", the first three; "" where nothing is."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)][:3]
    if not names:
        return ""
    of_there = ", ".join(f"{name} {there.get(name, 'none')}" for name in names)
    of_here = ", ".join(f"{name} {here.get(name, 'none')}" for name in names)
    return f"{where} has {of_there}; {elsewhere} has {of_here}"
