"""A plugin's own kernels in its own model, through the command line: on every native route and as an authored graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end
PLUGIN = Path(__file__).with_name("own_kernel.py")
ROUTES = ("torch", "keras", "jax", "authored+ort-cpu")
GRADIENTS = {
    f"d_{name}" for name in ("x", "hidden.kernel", "hidden.bias", "wide.kernel", "wide.bias", "y.kernel", "y.bias")
}


def results_of(site: Path, code: str, routes: tuple[str, ...]) -> dict[str, dict]:
    """Install `code` as a plugin in `site`, mint its model's goldens, run the model, and return the results by case."""
    info = site / "actconform_own_kernel-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-own-kernel\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[actconform]\nown-kernel = own_kernel:Plugin\n")
    (site / "own_kernel.py").write_text(code)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    patterns = [f"arctan-minout/*/f32/{route}" for route in routes]
    for arguments in (["golden", "mint", "arctan-minout"], ["run", *patterns, "--out", str(site / "out")]):
        subprocess.run(
            [sys.executable, "-m", "actconform", *arguments],
            cwd=site,
            env={**os.environ, "PYTHONPATH": path, "ACTCONFORM_CACHE": str(site / "cache")},
            capture_output=True,
            timeout=300,
            check=False,
        )
    report = json.loads((site / "out" / "report.json").read_bytes())
    return {result["case"].removeprefix("arctan-minout/"): result for result in report["results"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("site"), PLUGIN.read_text(encoding="utf-8"), ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_values_gradients_and_each_layer_of_a_plugins_kernels_are_right(results, route):
    value, gradient = results[f"value/f32/{route}"], results[f"gradient/f32/{route}"]
    assert (value["verdict"], gradient["verdict"]) == ("PASS", "PASS")
    layers = {measured["tensor"] for measured in value["measurements"] if measured["regime"] == "layers"}
    assert layers == {"hidden", "act", "wide", "least", "y", "loss"}
    assert {measured["tensor"] for measured in gradient["measurements"]} == GRADIENTS


def test_each_route_computes_with_what_the_plugin_brings(results):
    for route, name in (("torch", "torch.atan"), ("keras", "keras.ops.arctan"), ("jax", "jax.numpy.arctan")):
        assert f"composition: 0.5 * {name}(x)" in results[f"value/f32/{route}"]["implementation"]
        assert f"the minimum of the halves in {route}" in results[f"value/f32/{route}"]["implementation"]
    assert "Atan, Mul, Reshape, Split, Min" in results["value/f32/authored+ort-cpu"]["implementation"]


def test_a_wrong_implementation_of_a_plugins_kernel_fails_at_its_layer(tmp_path):
    code = PLUGIN.read_text(encoding="utf-8")
    wrong = code.replace('"torch", "torch", "atan"', '"torch", "torch", "tanh"')
    assert wrong != code
    results = results_of(tmp_path, wrong, ("torch",))
    assert results["value/f32/torch"]["verdict"] == "FAIL"
    assert {f["tensor"] for f in results["value/f32/torch"]["findings"] if f["regime"] == "layers"} == {"act"}
    assert results["gradient/f32/torch"]["verdict"] == "FAIL"
