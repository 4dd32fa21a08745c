"""The data sets: what the texts say of them holds, every machine makes the same numbers, and images are not told apart by a pixel."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.feedforward import autoencoder, blobs, image_cnn, regression
from actconform.testdata.datasets import CENTERS, DATA_SETS, draw_rows
from actconform.types.training import DATA_SET_NAMES

EXPERIMENTS = {experiment.data: experiment for experiment in experiments()}


def test_every_data_set_is_learned_by_an_experiment():
    assert tuple(DATA_SETS) == DATA_SET_NAMES
    assert EXPERIMENTS.keys() == DATA_SETS.keys()


@pytest.mark.parametrize("name", DATA_SETS)
def test_rows_are_those_of_the_models_inputs_and_differ_between_streams(name):
    model = EXPERIMENTS[name].model
    rows = draw_rows(name, "examples/0", 64, model)
    assert {key: (array.dtype, array.shape) for key, array in rows.items()} == {
        one.name: (np.dtype(np.float32), (64, *one.shape)) for one in model.inputs if one.role != "noise"
    }
    again, others = draw_rows(name, "examples/0", 64, model), draw_rows(name, "validation/0", 64, model)
    assert all(np.array_equal(rows[key], again[key]) for key in rows)
    assert not np.array_equal(rows["x"], others["x"])


def test_a_data_set_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"no data set is called 'blob'; there are noise, blobs"):
        draw_rows("blob", "examples/0", 4, blobs(published=False))


def test_blobs_lie_about_their_centers():
    rows = draw_rows("blobs", "examples/0", 1000, blobs(published=False))
    for number, center in enumerate(CENTERS):
        points = rows["x"][rows["target"][:, number] == 1.0]
        assert len(points) > 200
        assert np.abs(points.mean(axis=0) - center).max() < 0.3
        assert np.abs(points.std(axis=0) - 1.5).max() < 0.2


def test_signals_have_the_mean_and_mean_square_of_the_text():
    x = draw_rows("signals", "examples/0", 512, autoencoder("relu", published=True))["x"].astype(np.float64)
    assert 11.5 < np.abs(x).mean() < 13.5
    assert 1900 < (x**2).mean() < 2400
    assert (x > 1.0).mean() > 0.5  # beyond what a sigmoid can say


def test_no_pixel_tells_the_images_apart_and_stripes_do():
    rows = draw_rows("images", "examples/0", 600, image_cnn("sigmoid", published=False))
    vertical = rows["target"][:, 0] == 1.0
    assert 0.4 < vertical.mean() < 0.6
    pixels = rows["x"].reshape(len(vertical), -1)
    accuracy = np.maximum(
        ((pixels > 0) == vertical[:, None]).mean(axis=0), ((pixels > 0) != vertical[:, None]).mean(axis=0)
    )
    assert accuracy.max() < 0.62
    grey = rows["x"].mean(axis=-1)
    across, along = (np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (2, 1))
    assert ((across > along) == vertical).mean() > 0.97


@pytest.mark.parametrize(("head", "units"), [("sigmoid", 1), ("softmax2", 2)])
def test_the_same_images_have_a_target_of_each_head(head, units):
    rows = draw_rows("images", "examples/0", 32, image_cnn(head, published=False))
    ones = draw_rows("images", "examples/0", 32, image_cnn("sigmoid", published=False))
    assert rows["target"].shape == (32, units)
    assert np.array_equal(rows["x"], ones["x"])
    assert np.array_equal(rows["target"][:, -1], ones["target"][:, 0])


def test_a_map_is_the_same_function_for_examples_and_validation():
    model = regression(published=False, training=False)
    one = draw_rows("map", "examples/0", 4000, model)
    two = draw_rows("map", "validation/0", 4000, model)

    def features(rows):
        x = rows["x"].reshape(len(rows["x"]), -1).astype(np.float64)
        return np.concatenate([x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)], axis=1)[:, : 20 + 400]

    x, y = features(one), one["target"].reshape(4000, -1)[:, 0]
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    left = two["target"].reshape(4000, -1)[:, 0] - features(two) @ weights
    assert left.var() < 0.1 * two["target"].reshape(4000, -1)[:, 0].var()
