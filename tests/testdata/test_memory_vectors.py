"""Test vectors of layouts: the truth of their numbers, in every layout that their arrays can have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.zoo import PUBLISHED
from actconform.plugin.loader import load_plugins
from actconform.run.subject import subject_of
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.memory_vectors import OF_MODELS, OF_ROWS, OF_VECTORS, REGIME
from actconform.types import Case
from actconform.types.model import Model

CATALOG = load_plugins()


def laid_out(name: str, aspect: str, dtype: str = "f32") -> list:
    subject = CATALOG.subject(name)
    golden = None if isinstance(subject, Model) else load(golden_dir(), read_manifest(golden_dir()), name)
    vectors = subject_of(subject).vectors(Case(name, aspect, dtype, "torch"), golden).vectors
    assert all((vector.regime == REGIME) == bool(vector.layout) for vector in vectors)
    return [vector for vector in vectors if vector.layout]


def layouts(vectors: list) -> list[tuple[str, bool]]:
    return [(vector.layout, vector.first_plain) for vector in vectors]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_unary_kernel_is_asked_ordinary_and_special_numbers_in_disorder(dtype: str):
    vectors = laid_out("sigmoid", "value", dtype)
    assert layouts(vectors) == [(layout, False) for layout in (*OF_VECTORS, "broadcast")]
    *disordered, expanded = vectors
    assert len(set(expanded.inputs["x"].tolist())) == 1
    for vector in disordered:
        x = vector.inputs["x"].astype(np.float64)
        assert x.size > 480
        assert np.isnan(x).any()
        assert np.isinf(x).any()
        assert 0.4 < (np.diff(x[np.isfinite(x)]) < 0).mean() < 0.6
        np.testing.assert_allclose(vector.truth["y"], special.expit(x), rtol=1e-12, atol=1e-300)


def test_cotangents_lie_so_too_and_alone_and_expanded():
    vectors = laid_out("tanh", "gradient")
    assert layouts(vectors)[: len(OF_VECTORS)] == [(layout, False) for layout in OF_VECTORS]
    assert ("strided", True) in layouts(vectors)
    (expanded,) = [vector for vector in vectors if vector.layout == "broadcast"]
    assert set(expanded.cotangents["y"].tolist()) == {1.0}
    x = vectors[0].inputs["x"].astype(np.float64)
    with np.errstate(all="ignore"):
        d_x = vectors[0].cotangents["y"] / np.cosh(np.clip(x, -300, 300)) ** 2
    np.testing.assert_allclose(vectors[0].truth["d_x"], d_x, rtol=1e-9, atol=1e-100)


def test_kinks_are_among_the_numbers():
    (kink,) = [kink.x for kink in CATALOG.subject("thresholded-relu").kinks]
    assert (laid_out("thresholded-relu", "gradient")[0].inputs["x"] == np.float32(kink)).any()


@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_rows_lie_in_all_layouts_with_their_parameters(aspect: str):
    vectors = laid_out("prelu", aspect)
    assert {layout for layout, _ in layouts(vectors)} == {*OF_ROWS, "broadcast"}
    assert ("strided", True) in layouts(vectors)
    vector = vectors[0]
    x, slope = (vector.inputs[name].astype(np.float64) for name in ("x", "slope"))
    assert x.shape[0] > 1
    if aspect == "value":
        np.testing.assert_array_equal(vector.truth["y"], np.where(x > 0, x, slope * x))
    else:
        assert len(np.unique(vector.cotangents["y"])) > 10


@pytest.mark.parametrize("name", [kernel.name for kernel in KERNELS.values() if kernel.form == "row"])
def test_every_row_kernel_has_them(name: str):
    assert {layout for layout, _ in layouts(laid_out(name, "value"))} == {*OF_ROWS, "broadcast"}


def test_models_lie_so_with_their_parameters_but_for_published_sizes():
    vectors = laid_out("blobs-mlp", "gradient")
    assert layouts(vectors) == [(layout, False) for layout in OF_MODELS]
    assert laid_out(f"blobs-mlp{PUBLISHED}", "value") == []
