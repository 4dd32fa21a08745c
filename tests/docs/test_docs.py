"""Documents say what the code says."""

from __future__ import annotations

import re
import runpy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pytest

from actconform.cli import VERBS, _cli
from actconform.plugin.loader import load_plugins
from actconform.report.files import known_deviations
from actconform.testdata.golden.store import golden_dir
from actconform.types import TRAINING
from actconform.verdict.causes.check import check_formulas
from actconform.verdict.causes.observed import evidence, read_observed

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
WRITTEN = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    *sorted(TOP.glob("docs/**/*.md")),
    *sorted(TOP.glob("plugins/*/README.md")),
]
documents = pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.relative_to(TOP).as_posix())


def test_known_deviations_are_the_register():
    assert (TOP / "docs/known-deviations.md").read_text() == known_deviations.document(
        load_plugins().register, evidence(read_observed(golden_dir()))
    ), "run `make docs`"


def test_every_cause_that_the_divergences_name_is_registered():
    text = (TOP / "docs/divergences.md").read_text()
    named = set(re.findall(r"`((?:torch|keras|graph|nan)-[a-z0-9*-]+)`", text)) - {"nan-lost", "nan-made"}
    ids = {cause.id for cause in load_plugins().register.causes}
    assert len(named) >= 8
    assert named <= ids


def test_every_cause_says_why_and_where_it_was_reported_and_names_subjects_that_exist():
    catalog = load_plugins()
    for cause in catalog.register.causes:
        assert len(cause.reason) > 20, cause.id
        assert cause.link == "unreported" or cause.link.startswith("https://"), cause.id
        for cover in cause.covers:
            subjects = catalog.experiments if cover.aspect == TRAINING else catalog.subjects
            for name in cover.kernels:
                assert any(fnmatchcase(subject, name) for subject in subjects), f"{cause.id}: {name}"


def test_formulas_fit_the_kernels_that_they_are_stated_for():
    catalog = load_plugins()
    check_formulas(catalog.register, catalog.kernels)


def test_the_registers_stay_small():
    lines = [len(path.read_text().splitlines()) for path in TOP.glob("plugins/*/src/*/causes.toml")]
    assert len(lines) >= 6
    assert sum(lines) < 2500
    assert len(load_plugins().register.causes) <= 250


@pytest.mark.parametrize(("truth", "got"), [(-2.97e-8, 0.0), (1.68e-8, 2.98e-8), (-6.08e-8, -0.0)])
def test_the_cases_that_a_document_says_allclose_misses_are_missed(truth, got):
    assert f"{truth:.3g}".replace("e-0", "e-") in (TOP / "docs/judging.md").read_text()
    np.testing.assert_allclose(got, truth, rtol=1e-5, atol=1e-6)
    assert abs(got - truth) > 0.7 * abs(truth)


def test_readme_has_at_most_120_lines():
    assert len((TOP / "README.md").read_text().splitlines()) <= 120


@documents
def test_documents_name_targets_that_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", document.read_text("utf-8"), re.MULTILINE)) <= targets


@documents
def test_documents_name_commands_and_options_that_exist(document):
    for line in command_lines(document.read_text("utf-8")):
        verb, *words = line.split()
        assert verb in VERBS, line
        options = set(_options(_cli.get_command(click.Context(_cli), verb)))
        assert {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)} <= options, line


def command_lines(text: str) -> list[str]:
    """Return what stands behind `actconform` in every command of a document, in a line or a block, up to a comment or another command."""
    in_line = re.findall(r"`actconform ([a-z][a-z-]*(?: [^`]*)?)`", text)
    in_block = re.findall(r"^    (?:\$ )?(?:\.venv/bin/)?actconform ([a-z][a-z-]* .*)$", text, re.MULTILINE)
    return [re.split(r" #|[;&|>)]", line)[0] for line in in_line + in_block]


def _options(command: click.Command) -> Iterator[str]:
    yield "--help"
    for parameter in command.params:
        yield from [*parameter.opts, *parameter.secondary_opts]
    for part in getattr(command, "commands", {}).values():
        yield from _options(part)


def test_an_option_that_there_is_none_of_is_seen():
    assert command_lines("Run `actconform check m.onnx --htlm`:\n\n    $ actconform run 'elu/*' --full   # all\n") == [
        "check m.onnx --htlm",
        "run 'elu/*' --full  ",
    ]
    assert "--htlm" not in set(_options(_cli.get_command(click.Context(_cli), "check")))


@pytest.mark.parametrize("readme", sorted(TOP.glob("plugins/*/README.md")), ids=lambda path: path.parent.name)
def test_plugins_name_files_that_exist(readme: Path):
    text = readme.read_text(encoding="utf-8")
    for name in re.findall(r"`(src/[^`]+)`", text):
        assert (readme.parent / name).exists(), name
    assert "deviations.toml" not in text


def test_the_table_of_old_opsets_is_that_of_the_sweep():
    sweep = runpy.run_path(str(TOP / "tests/onnx_graphs/old_opsets.py"))
    document = (TOP / "docs/gradients.md").read_text(encoding="utf-8")
    assert f"{sweep['BEGIN']}\n{sweep['table']()}\n{sweep['END']}" in document, "run `make docs`"
