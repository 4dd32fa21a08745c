"""The questions that a run draws once for all its routes."""

from __future__ import annotations

import pytest

from actconform.catalog.kernels import UNARY
from actconform.run import case
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Case

BY_NAME = {kernel.name: kernel for kernel in UNARY}
NAMES = ("relu", "sigmoid", "tanh")


@pytest.fixture
def exams() -> case.Exams:
    return case.Exams(golden_dir(), read_manifest(golden_dir()))


def drawn(exams: case.Exams, name: str, route: str) -> object:
    return exams.draw(BY_NAME[name], Case(subject=name, aspect="value", dtype="f32", route=route))


def test_questions_are_drawn_once_for_all_routes(exams: case.Exams):
    first = [drawn(exams, name, "torch") for name in NAMES]
    later = [drawn(exams, name, "keras") for name in NAMES]
    assert all(one is other for one, other in zip(first, later, strict=True))


def test_the_oldest_questions_go_where_all_are_too_large(exams: case.Exams, monkeypatch: pytest.MonkeyPatch):
    relu = exams.draw(BY_NAME["relu"], Case(subject="relu", aspect="value", dtype="f32", route="torch"))
    monkeypatch.setattr(case, "EXAMS_KEPT", int(2.5 * relu.nbytes))
    sigmoid, tanh = (drawn(exams, name, "torch") for name in ("sigmoid", "tanh"))
    assert drawn(exams, "sigmoid", "keras") is sigmoid
    assert drawn(exams, "tanh", "keras") is tanh
    assert drawn(exams, "relu", "keras") is not relu


def test_what_alone_is_too_large_is_kept_until_the_next(exams: case.Exams, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(case, "EXAMS_KEPT", 1)
    relu = drawn(exams, "relu", "torch")
    assert drawn(exams, "relu", "keras") is relu
    drawn(exams, "tanh", "torch")
    assert drawn(exams, "relu", "keras") is not relu
