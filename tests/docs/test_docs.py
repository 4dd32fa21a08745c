"""Documents say what the code says."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from actconform.cli import VERBS
from actconform.plugins import load_plugins
from actconform.report.known import document

TOP = Path(__file__).parents[2]


def test_known_deviations_are_the_register():
    assert (TOP / "docs/known-deviations.md").read_text() == document(load_plugins().deviations), "run `make docs`"


def test_every_deviation_that_the_divergences_name_is_registered():
    text = (TOP / "docs/divergences.md").read_text()
    named = set(re.findall(r"`((?:torch|keras|ort|\*)-[a-z0-9*-]+)`", text)) - {"ort-cpu", "ort-cuda"}
    ids = [deviation.id for deviation in load_plugins().deviations]
    assert len(named) > 10
    assert [name for name in named if not any(fnmatchcase(id_, name) for id_ in ids)] == []


def test_every_deviation_says_why_and_where_it_was_reported():
    for deviation in load_plugins().deviations:
        assert len(deviation.reason) > 20, deviation.id
        assert deviation.link == "unreported" or deviation.link.startswith("https://github.com/"), deviation.id
        assert deviation.kernels, deviation.id
        assert not any("*" in kernel for kernel in deviation.kernels), f"{deviation.id}: kernels are named one by one"


def test_readme_names_verbs_and_targets_that_exist():
    readme = (TOP / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z]+)", readme):
        assert target in targets
    for verb in re.findall(r"`actconform ([a-z]+)", readme):
        assert verb in VERBS
