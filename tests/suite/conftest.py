"""The runtime of tests/suite_runtime.py in its worker."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from actconform.checking.open_runtime import open_runtime
from actconform.plugin.loader import GROUP, load_plugins
from actconform.settings import Config

sys.path.append(str(Path(__file__).parent))  # small_cases

PLUGIN = "suite_runtime:Plugin"


@pytest.fixture
def suite_runtime(tmp_path, monkeypatch):
    """Return what opens the runtime: with a deadline of so many seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    catalog = load_plugins(entry_points=[EntryPoint("suite", PLUGIN, GROUP)])
    opened = []

    def opens(timeout=60.0):
        runs = open_runtime("suite-runtime", catalog, Config(), timeout=timeout, plugins=[PLUGIN])
        opened.append(runs)
        return runs

    yield opens
    for runs in opened:
        runs.close()
