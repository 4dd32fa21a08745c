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
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", TOP / "docs", TOP, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_in_a_table_of_contents():
    entries = set(re.findall(r"^[\w-]+$", INDEX.read_text("utf-8"), re.MULTILINE))
    globs = re.findall(r"^([\w-]+)\*$", INDEX.read_text("utf-8"), re.MULTILINE)
    for document in TOP.glob("docs/*.md"):
        if document != INDEX:
            assert document.stem in entries or document.stem.startswith(tuple(globs)), f"{document}: add it to {INDEX}"


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
