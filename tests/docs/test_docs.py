"""Documents say what the code says."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

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
    catalog = load_plugins()
    for deviation in catalog.deviations:
        assert len(deviation.reason) > 20, deviation.id
        assert deviation.link == "unreported" or deviation.link.startswith("https://"), deviation.id
        assert deviation.kernels, deviation.id
        named = [kernel.removesuffix("*") for kernel in deviation.kernels]
        assert not any("*" in kernel for kernel in named), (
            f"{deviation.id}: subjects are named one by one, and their sizes"
        )
        assert all(kernel in catalog.subjects for kernel in named), f"{deviation.id}: {named}"


@pytest.mark.parametrize(("truth", "got"), [(-2.97e-8, 0.0), (1.68e-8, 2.98e-8), (-6.08e-8, -0.0)])
def test_the_cases_that_readme_says_allclose_misses_are_missed(truth, got):
    assert f"{truth:.3g}".replace("e-0", "e-") in (TOP / "README.md").read_text()
    np.testing.assert_allclose(got, truth, rtol=1e-5, atol=1e-6)
    assert abs(got - truth) > 0.7 * abs(truth)


def test_readme_names_verbs_and_targets_that_exist():
    readme = (TOP / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z]+)", readme):
        assert target in targets
    for verb in re.findall(r"`actconform ([a-z-]+)", readme):
        assert verb in VERBS
