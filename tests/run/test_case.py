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
def vector_cache() -> case.VectorCache:
    return case.VectorCache(golden_dir(), read_manifest(golden_dir()))


def drawn(vector_cache: case.VectorCache, name: str, route: str) -> object:
    return vector_cache.generate(BY_NAME[name], Case(subject=name, aspect="value", dtype="f32", route=route))


def test_questions_are_drawn_once_for_all_routes(vector_cache: case.VectorCache):
    first = [drawn(vector_cache, name, "torch") for name in NAMES]
    later = [drawn(vector_cache, name, "keras") for name in NAMES]
    assert all(one is other for one, other in zip(first, later, strict=True))


def test_the_oldest_questions_go_where_all_are_too_large(
    vector_cache: case.VectorCache, monkeypatch: pytest.MonkeyPatch
):
    relu = vector_cache.generate(BY_NAME["relu"], Case(subject="relu", aspect="value", dtype="f32", route="torch"))
    monkeypatch.setattr(case, "CACHE_BYTES", int(2.5 * relu.nbytes))
    sigmoid, tanh = (drawn(vector_cache, name, "torch") for name in ("sigmoid", "tanh"))
    assert drawn(vector_cache, "sigmoid", "keras") is sigmoid
    assert drawn(vector_cache, "tanh", "keras") is tanh
    assert drawn(vector_cache, "relu", "keras") is not relu


def test_what_alone_is_too_large_is_kept_until_the_next(
    vector_cache: case.VectorCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(case, "CACHE_BYTES", 1)
    relu = drawn(vector_cache, "relu", "torch")
    assert drawn(vector_cache, "relu", "keras") is relu
    drawn(vector_cache, "tanh", "torch")
    assert drawn(vector_cache, "relu", "keras") is not relu
