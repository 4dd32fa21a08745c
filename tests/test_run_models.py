"""Models down the whole line with real worker processes: a fault is reported at its layer, on its route, and nowhere else."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from actconform.catalog.models.zoo import networks
from actconform.comparison.layerwise import LAYERS
from actconform.plugin.loader import load_plugins
from actconform.run.scheduler import Plan, run
from actconform.run.select import all_cases
from actconform.settings import Config
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Result, Verdict
from actconform.types.cause import Register

HERE = Path(__file__).parent
PLUGIN = "layered:Plugin"
HIDDEN = "regression-softmax-hidden"
SUBJECTS = (HIDDEN, f"{HIDDEN}@training", "mlp-relu", "attention-block", "image-cnn-sigmoid", "dnc-memory")
MODELS = {model.name: model for model in networks()}


@pytest.fixture(scope="module")
def results() -> Any:
    """Every result of all three backends by case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        points = [EntryPoint(PLUGIN, PLUGIN, "actconform")]
        points.append(EntryPoint("builtin", "actconform.plugin.builtin:Builtin", "actconform"))
        catalog = load_plugins(entry_points=points)
        cases = [case for case in all_cases(catalog) if case.subject in SUBJECTS]
        folder = golden_dir()
        plan = Plan(
            cases=cases,
            catalog=catalog,
            config=Config(timeout=60.0),
            folder=folder,
            manifest=read_manifest(folder),
            register=Register(),
            plugins=(PLUGIN,),
        )
        found: list[Result] = []
        run(plan, lambda *_: None, found.append)
    assert sorted(result.case for result in found) == sorted(case.id for case in cases)
    assert len(found) == len(SUBJECTS) * 2 * 3 * 3  # aspects, dtypes, routes
    return {result.case: result for result in found}


def at_layers(result: Result) -> list[str]:
    return [finding.tensor for finding in result.findings if finding.regime == LAYERS]


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_the_backend_that_is_right_passes(results: dict[str, Result], subject: str, aspect: str) -> None:
    result = results[f"{subject}/{aspect}/f32/right-nn"]
    if subject == "dnc-memory":
        assert (result.verdict, result.stage, result.reason) == (
            Verdict.UNSUPPORTED,
            "build",
            "no layers with a memory",
        )
        return
    assert (result.verdict, result.reason, result.findings) == (Verdict.PASS, "", ())
    assert result.implementation == "layers of numpy"
    seen = [one.tensor for one in result.measurements if one.regime == LAYERS]
    assert seen == ([one.name for one in MODELS[subject].layers] if aspect == "value" else [])
    assert ("layers" in result.timings) == (aspect == "value")


@pytest.mark.parametrize("subject", [HIDDEN, f"{HIDDEN}@training", "attention-block"])
def test_an_injected_epsilon_is_reported_at_its_layer_and_no_other(results: dict[str, Result], subject: str) -> None:
    result = results[f"{subject}/value/f32/epsilon-nn"]
    assert (result.verdict, result.stage, result.blame) == (Verdict.FAIL, "judge", "framework")
    assert at_layers(result) == ["norm2"]
    first = next(finding for finding in result.findings if finding.regime == LAYERS)
    assert (first.tensor, first.class_, first.regime, first.blame) == ("norm2", "scaled-error", LAYERS, "framework")
    assert f"first layer over its bound: norm2 ({first.magnitude:.3g} times)" in result.reason
    assert {finding.tensor for finding in result.findings} == {"norm2", "y", "loss"}


def test_the_gradient_of_an_injected_epsilon_is_found_and_the_one_furthest_off_is_named(
    results: dict[str, Result],
) -> None:
    result = results[f"{HIDDEN}/gradient/f32/epsilon-nn"]
    assert result.verdict is Verdict.FAIL
    worst = max(result.findings, key=lambda finding: finding.magnitude)
    assert "d_dense1.kernel" in {finding.tensor for finding in result.findings}
    assert f"gradient furthest off: {worst.tensor} ({worst.magnitude:.3g} times its limit)" in result.reason


@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_models_without_that_layer_stay_clean_on_the_faulty_backend(results: dict[str, Result], aspect: str) -> None:
    for subject in ("mlp-relu", "dnc-memory"):
        assert results[f"{subject}/{aspect}/f32/epsilon-nn"].verdict is Verdict.PASS


def test_an_epsilon_that_is_meant_is_no_finding(results: dict[str, Result]) -> None:
    """Batch normalization has 1e-3 of its own accord, in norm2 too."""
    assert {MODELS["image-cnn-sigmoid"].layer("norm2").settings["epsilon"]} == {1e-3}
    assert results["image-cnn-sigmoid/value/f32/epsilon-nn"].verdict is Verdict.PASS


def test_names_and_shapes_that_a_backend_gives_wrongly_are_findings(results: dict[str, Result]) -> None:
    assert results["mlp-relu/value/f32/careless-nn"].verdict is Verdict.PASS
    result = results["mlp-relu/gradient/f32/careless-nn"]
    assert result.verdict is Verdict.FAIL
    found = {(finding.class_, finding.tensor): finding.evidence for finding in result.findings}
    assert found.keys() == {
        ("names", "d_head.bias"),
        ("names", "d_dense1.kernel"),
        ("names", "d_dense1.weight"),
        ("shape", "d_dense2.kernel"),
        ("dtype", "d_dense3.bias"),
    }
    assert "output 'd_head.bias' is missing; got ['d_dense1.bias'" in found["names", "d_head.bias"]
    assert "output 'd_dense1.weight' was not asked for" in found["names", "d_dense1.weight"]
    assert "shape [12, 16], expected [16, 12]" in found["shape", "d_dense2.kernel"]
    assert {finding.blame for finding in result.findings} == {"framework"}


def test_a_backend_that_fails_at_one_model_goes_on_with_the_next(results: dict[str, Result]) -> None:
    """What `careless` does to gradients that a model lacks is a fault of its own: it costs that case."""
    result = results["attention-block/gradient/f32/careless-nn"]
    assert (result.verdict, result.stage) == (Verdict.ERROR, "run")
    assert "KeyError: 'd_head.bias'" in result.reason
    assert results["image-cnn-sigmoid/value/f32/careless-nn"].verdict is Verdict.PASS
