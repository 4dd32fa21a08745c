"""The export as ONNX test data: onnx's own loader and runner read it, ONNX Runtime passes it, a wrong runtime does not."""

from __future__ import annotations

import json
import unittest
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.run import onnx_test_data
from actconform.run.onnx_test_data import export_test_data, folder_name
from actconform.testdata.golden.store import golden_dir, load, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = load_plugins()
SUBJECTS = ("relu", "softmax", "mlp-relu")


def golden(name: str) -> Any:
    return load(golden_dir(), read_manifest(golden_dir()), name)


def subjects(*names: str) -> list[Any]:
    return [{**CATALOG.kernels, **CATALOG.models}[name] for name in names]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "data"
    export_test_data(subjects(*SUBJECTS), golden, folder)
    return folder


class OfModel:
    """onnx's backend interface over a function of the model and its inputs."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def supports_device(self, device: str) -> bool:
        return device == "CPU"

    def prepare(self, model: Any, device: str, **_: Any) -> Any:
        loaded = onnx.load(model) if isinstance(model, str) else model

        return SimpleNamespace(run=lambda inputs: self._run(loaded, inputs))

    run_model = prepare
    is_compatible = staticmethod(lambda *_, **__: True)


def in_onnxruntime(model: Any, inputs: Any) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def failures(folder: Path, run: Any, dtypes: tuple[str, ...]) -> tuple[int, list[str]]:
    """Return how many tests onnx's runner ran, and those that did not pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnx.backend.test.runner.load_model_tests", lambda **_: [])  # onnx's own cases
        runner = Runner(OfModel(run))
    for kind in {"kernel", "model"} & {path.name for path in folder.iterdir()}:
        for test in load_model_tests(str(folder), kind):
            if test.name.endswith(dtypes):
                runner._add_model_test(test, kind)
    result = unittest.TestResult()
    runner.test_suite.run(result)
    assert {reason for _, reason in result.skipped} <= {"Backend doesn't support device CUDA"}
    return result.testsRun - len(result.skipped), [str(test) for test, _ in (*result.failures, *result.errors)]


def test_onnxs_runner_passes_every_case_in_onnxruntime_but_for_conventions(exported):
    count, failed = failures(exported, in_onnxruntime, ("_f32", "_f16"))
    assert count == 2 * 2 * len(SUBJECTS)
    # The slope of relu at NaN: the graph selects by a comparison, which is a convention of the kernel.
    assert "nan" in str(CATALOG.kernels["relu"].conventions).lower()
    assert {name.split()[0] for name in failed} == {f"test_relu_gradient_{dtype}_cpu" for dtype in ("f32", "f16")}


def test_data_sets_whose_limits_no_pair_of_tolerances_can_state_are_left_out(tmp_path):
    """Near a root, times a cotangent of 2**31, the limits allow what is larger than the derivative; at infinite cotangents they allow NaN."""
    manifest = export_test_data(subjects("silu"), golden, tmp_path / "data")
    for case in manifest.cases:
        if case.aspect == "gradient":
            assert 0 < case.left_out <= 2 < len(case.data_sets)
            assert case.rtol < (0.01 if case.dtype == "f32" else 1.0)
    _, failed = failures(tmp_path / "data", in_onnxruntime, ("gradient_f32", "gradient_f16"))
    assert failed == []


def test_onnxs_runner_finds_a_wrong_runtime(exported):
    def wrong(model: Any, inputs: Any) -> Any:
        with np.errstate(all="ignore"):
            return [output * output.dtype.type(1.02) for output in in_onnxruntime(model, inputs)]

    count, failed = failures(exported, wrong, ("_f32",))
    assert len(failed) == count == 2 * len(SUBJECTS)


@pytest.mark.parametrize(("dtype", "storage"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_all_patterns_of_sixteen_bits_are_one_data_set(exported, dtype, storage):
    sets = exported / "kernel" / f"test_relu_value_{dtype}"
    bits = [onnx.load_tensor(path) for path in sets.glob("*/input_0.pb")]
    (every,) = [tensor for tensor in bits if tensor.dims[0] == 1 << 16]
    patterns = np.frombuffer(every.raw_data, np.uint16)
    np.testing.assert_array_equal(patterns, np.arange(1 << 16))
    assert numpy_helper.to_array(every).dtype == storage
    (folder,) = [path.parent for path in sets.glob("*/input_0.pb") if onnx.load_tensor(path).dims[0] == 1 << 16]
    with np.errstate(invalid="ignore"):  # signalling NaN
        output = numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb")).astype(np.float64)
        np.testing.assert_array_equal(output, np.maximum(patterns.view(storage).astype(np.float64), 0))


def test_files_are_named_as_the_graph_orders_its_inputs_and_outputs(exported):
    folder = exported / "model" / "test_mlp_relu_gradient_f32"
    graph = onnx.load(folder / "model.onnx").graph
    for kind, values in (("input", graph.input), ("output", graph.output)):
        names = [onnx.load_tensor(folder / "test_data_set_0" / f"{kind}_{i}.pb").name for i in range(len(values))]
        assert names == [value.name for value in values]
    assert "ct_loss" in [value.name for value in graph.input]


def test_the_manifest_has_the_limits_of_every_data_set(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert len(manifest["cases"]) == 2 * 3 * len(SUBJECTS) - len(manifest["unsupported"])
    for case in manifest["cases"]:
        folder = exported / case["folder"]
        assert len(list(folder.glob("test_data_set_*"))) == len(case["data_sets"]) > 0
        assert json.loads((folder / "data.json").read_text()) == {"rtol": case["rtol"], "atol": case["atol"]}
    (relu,) = [case for case in manifest["cases"] if case["folder"] == "kernel/test_relu_value_f32"]
    assert {limit for data_set in relu["data_sets"] for limit in data_set["limits"].values()} == {0.0}
    assert "manifest.json" in (exported / "README.md").read_text()


def test_no_two_subjects_of_the_catalog_share_a_folder():
    names = [folder_name(name, "value", "f32") for name in (*CATALOG.kernels, *CATALOG.models)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path, kind):
    target = tmp_path / "data"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"is not empty|is no folder"):
        export_test_data(subjects("relu"), golden, target)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_that_ends_early_leaves_nothing(tmp_path, monkeypatch):
    real, count = onnx_test_data.write_bytes, iter(range(100))

    def full(path: Path, content: bytes) -> None:
        if next(count) == 20:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(onnx_test_data, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_test_data(subjects("relu"), golden, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
