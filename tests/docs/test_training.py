"""What docs/training.md says of experiments is what the catalog has."""

from __future__ import annotations

import re
import runpy

import pytest
from documents import TOP, blocks

from actconform import Unsupported
from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.plugin.interfaces import Backend
from actconform.plugin.loader import load_plugins
from actconform.testdata.training_vectors import FREE_RUNNING, INFERENCE, PARTS

DOCUMENT = (TOP / "docs" / "training.md").read_text(encoding="utf-8")


def column(head: str) -> set[str]:
    """Return the code words in the first column of the table whose head begins so."""
    rows = DOCUMENT[DOCUMENT.index(f"| {head} |") :].partition("\n\n")[0].splitlines()[2:]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_each_experiment_of_a_default_run_is_in_the_table():
    assert column("experiments") == {e.name for e in experiments() if PUBLISHED not in e.name}


def test_each_part_that_is_judged_is_in_the_table():
    assert column("part") >= {*PARTS, FREE_RUNNING, INFERENCE}


def test_each_framework_that_trains_is_in_the_table():
    catalog = load_plugins(judging=False)
    shipped = ("actconform-keras ", "actconform-torch ")
    trainers = {
        name
        for name, backend in catalog.backends.items()
        if backend.train is not Backend.train and catalog.backend_plugin[name].startswith(shipped)
    }
    refusing = {"keras-gpu"}  # as the words below the table say
    assert trainers, "no plugin of a framework is installed"
    assert column("backend") == trainers - refusing


def test_the_backend_that_trains_is_right_as_it_stands_and_a_wrong_step_of_it_is_named(tmp_path):
    program = tmp_path / "trainer.py"

    def run(source):
        program.write_text(source, encoding="utf-8")
        runpy.run_path(str(program))

    shown = "".join(text for language, text in blocks(TOP / "docs" / "training.md") if language == "python")
    run(shown)
    summed = shown.replace("/ np.float32(rows)", "")
    assert summed != shown
    with pytest.raises(AssertionError, match="first at step 1, gradient"):
        run(summed)
    with pytest.raises(Unsupported, match="no optimizer but sgd"):
        run(shown.replace('short_task("blobs-sgd")', 'short_task("blobs-adam")'))
