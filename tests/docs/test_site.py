"""The site of the documents: it builds without a warning, every document is in it, every command and every name of the package too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from documents import TOP

import actconform
from actconform.cli import VERBS

INDEX = TOP / "docs/index.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("myst_nb", reason='needs Sphinx: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-j",
        "auto",
        "-c",
        TOP / "docs",
        TOP,
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_in_a_table_of_contents():
    entries = set(re.findall(r"^[\w/-]+$", INDEX.read_text("utf-8"), re.MULTILINE))
    pages = {path.relative_to(TOP / "docs").with_suffix("").as_posix() for path in TOP.glob("docs/**/*.md")}
    assert pages - {"index"} == entries, f"list it in {INDEX}"


def test_the_site_builds_without_a_warning_and_its_first_page_leads_to_the_documents(site):
    assert "url=docs/index.html" in (site / "index.html").read_text("utf-8")
    assert (site / "docs/index.html").is_file()
    assert (site / "CONTRIBUTING.html").is_file()


def test_the_site_has_every_command_with_its_options(site):
    page = (site / "docs/commands.html").read_text("utf-8")
    for verb in VERBS:
        assert f'id="actconform-{verb}"' in page
    assert "--minimize" in page


def test_the_site_has_every_name_that_the_package_exports(site):
    page = (site / "docs/api.html").read_text("utf-8")
    for name in set(actconform.__all__) - {"__version__", "hookimpl"}:
        assert f'id="actconform.{name}"' in page, name


def test_notebooks_are_shown_with_what_they_print(site):
    printed = {
        "exported-model": ["conforms: False", "blame:    runtime"],
        "own-activation": ["DOES NOT CONFORM", "(False, True)"],
        "read-a-report": ["cases", "share of limit", "sigmoid/value/f32/authored+ort-cpu", "dataframe"],
    }
    assert set(printed) == {path.stem for path in TOP.glob("docs/notebooks/*")}
    for name, lines in printed.items():
        page = (site / f"docs/notebooks/{name}.html").read_text("utf-8")
        assert [line for line in lines if line not in page] == []
