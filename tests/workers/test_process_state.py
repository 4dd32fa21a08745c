"""The state of a process: what is read, and what counts as a change."""

from __future__ import annotations

import random
import signal
import sys
import warnings
from types import SimpleNamespace

import numpy as np

from actconform.workers.process_state import FRESH, StateWatch, changes, snapshot


def test_a_fresh_process_is_as_it_is_said_to_be():
    now = snapshot()
    assert {name: now[name] for name in FRESH if "torch" not in name} == {
        name: value for name, value in FRESH.items() if "torch" not in name
    }
    assert snapshot() == now


def test_draws_from_global_streams_are_seen_and_those_of_generators_of_ones_own_are_not():
    random_before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        before = snapshot()
        np.random.default_rng(3).random()
        random.Random(3).random()  # noqa: S311
        assert snapshot() == before
        random.random()  # noqa: S311
        after = snapshot()
        assert changes(before, after, drawing=True) == ["Python's random state changed"]
        assert changes(before, after, drawing=False) == []
        np.random.rand()  # noqa: NPY002
        assert changes(after, snapshot(), drawing=True) == ["numpy's random state changed"]
    finally:
        random.setstate(random_before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def test_errors_that_numpy_raises_instead_of_warning_are_a_change():
    before = snapshot()
    with np.errstate(divide="raise"):
        (change,) = changes(before, snapshot(), drawing=False)
    assert change.startswith("numpy's handling of floating-point errors: {'divide': 'warn'")
    assert changes(before, snapshot(), drawing=True) == []


def test_frameworks_are_asked_where_they_are_imported_and_let_themselves_be_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=SimpleNamespace(jax_enable_x64=False)))
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = snapshot()
    assert before["jax's 64 bits"] == "False"
    assert not [name for name in before if "keras" in name or "torch" in name]
    sys.modules["jax"].config.jax_enable_x64 = True
    assert changes(before, snapshot(), drawing=True) == ["jax's 64 bits: False before, True after"]


def test_another_working_folder_is_a_change(monkeypatch, tmp_path):
    before = snapshot()
    monkeypatch.chdir(tmp_path)
    (change,) = changes(before, snapshot(), drawing=False)
    assert change.startswith("the working folder: ")
    assert change.endswith(f"{tmp_path} after")


def test_what_only_one_side_knows_is_no_change():
    assert changes({"a": "1"}, {"b": "2"}, drawing=True) == []


def test_variables_of_the_environment_are_seen_set_changed_and_removed_without_their_values(monkeypatch):
    before = snapshot()
    monkeypatch.setenv("ACTCONFORM_SECRET", "hunter2")
    between = snapshot()
    assert changes(before, between, drawing=False) == ["the environment's ACTCONFORM_SECRET changed"]
    monkeypatch.setenv("ACTCONFORM_SECRET", "hunter3")
    assert changes(between, snapshot(), drawing=False) == ["the environment's ACTCONFORM_SECRET changed"]
    monkeypatch.delenv("ACTCONFORM_SECRET")
    assert changes(between, snapshot(), drawing=False) == ["the environment's ACTCONFORM_SECRET changed"]


def test_limits_and_handlers_are_settings_too():
    before, limit = snapshot(), sys.getrecursionlimit()
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    sys.setrecursionlimit(limit + 7)
    try:
        found = changes(before, snapshot(), drawing=False)
    finally:
        sys.setrecursionlimit(limit)
        signal.signal(signal.SIGUSR2, handler)
    assert f"Python's limit of recursion: {limit} before, {limit + 7} after" in found
    assert any("SIGUSR2 ignored" in change for change in found)
    assert changes(before, snapshot(), drawing=False) == []


def test_a_watch_names_the_step_and_tells_what_is_left():
    watch = StateWatch()
    with np.errstate(divide="raise"):
        watch.after("a call")
        assert watch.left_changed
    watch.after("closing")
    assert not watch.left_changed
    assert [name for name, _ in watch.changed] == ["numpy's handling of floating-point errors"] * 2
    assert [words.split(" changes")[0] for _, words in watch.changed] == ["a call", "closing"]


def test_warnings_that_a_late_import_hides_are_its_own(monkeypatch):
    with warnings.catch_warnings():
        watch = StateWatch()
        warnings.simplefilter("ignore", ResourceWarning)
        monkeypatch.setitem(sys.modules, "imported_late", SimpleNamespace())
        watch.after("a call")
        assert watch.changed == []
        warnings.simplefilter("ignore", BytesWarning)
        watch.after("another call")
        assert watch.changed == [
            ("warnings that are hidden", "another call changes the process: warnings that are hidden changed")
        ]
