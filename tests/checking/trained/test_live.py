"""A model of this process answers as one in a worker does: run, differentiated, exported, and its faults are failures."""

from __future__ import annotations

import numpy as np
import pytest

from actconform import Backend, SourceError, TrainedModel, Unsupported, hookimpl
from actconform.checking.runs import RunFailure
from actconform.checking.trained.live import live_runs
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.types.trained import OpenedModel, TrainedRun


class Doubling:
    """A user's model, of a class of the framework."""

    __module__ = "doubler.layers"


class Doubled(TrainedModel):
    def __init__(self, example):
        self.example = example
        self.closed = False

    @property
    def about(self):
        return OpenedModel(framework="doubler", about="doubles", example={"x": np.asarray(self.example)})

    def run(self, inputs, mode, *, layers=False):
        if inputs["x"].size == 0:
            raise ValueError("nothing to double")
        return TrainedRun(outputs={"y": 2 * inputs["x"]})

    def gradients(self, inputs, cotangents, mode):
        return {"d_x": 2 * cotangents["y"]}

    def parameters(self):
        return {"factor": np.float32([2])}

    def close(self):
        self.closed = True


ADOPTED = []


class Doubler(Backend):
    name = "doubler"
    kind = "framework"
    opens = ("factory",)

    def facts(self):
        return {"doubler": "1.0"}

    def adopt_trained(self, model, example):
        if not isinstance(model, Doubling):
            raise Unsupported("doubles only what doubles")
        if isinstance(example, str):
            raise SourceError("the example is wrong: give an array")
        ADOPTED.append(Doubled(example))
        return ADOPTED[-1]


class Plugin:
    @hookimpl
    def actconform_backends(self):
        return [Doubler]


@pytest.fixture(scope="module")
def catalog():
    return load_plugins([Plugin()])


def test_it_is_opened_run_and_differentiated_without_a_worker(catalog):
    x = np.float32([1, 2])
    with live_runs(Doubling(), x, catalog, 60.0) as runs:
        opened = runs.open()
        assert (opened.framework, dict(runs.facts), runs.source.text) == (
            "doubler",
            {"doubler": "1.0"},
            "Doubling of this process",
        )
        np.testing.assert_array_equal(opened.example["x"], x)
        result = runs.run({"x": x}, twice=True)
        np.testing.assert_array_equal(result.run.outputs["y"], [2, 4])
        assert result.unsteady == []
        np.testing.assert_array_equal(runs.gradients({"x": x}, {"y": x})["d_x"], [2, 4])
        assert list(runs.parameters()) == ["factor"]
    assert not ADOPTED[-1].closed, "it is the user's"


def test_what_it_raises_is_a_failure(catalog):
    runs = live_runs(Doubling(), np.float32([1]), catalog, 60.0)
    failure = runs.run({"x": np.empty(0, np.float32)})
    assert isinstance(failure, RunFailure)
    assert "nothing to double" in failure.message
    assert isinstance(runs.export("doubler-to-onnx", {}), RunFailure)


def test_what_the_user_did_wrong_is_told(catalog):
    with pytest.raises(UsageError, match="Doubling of this process: doubler: the example is wrong"):
        live_runs(Doubling(), "wrong", catalog, 60.0)


@pytest.mark.parametrize("value", [3, np.ones(3), "text", object()], ids=["int", "array", "text", "object"])
def test_what_is_no_model_is_refused(catalog, value):
    with pytest.raises(UsageError, match=r"is no model; expected a path, package\.module:factory, an onnx\.ModelProto"):
        live_runs(value, None, catalog, 60.0)
