"""Runtimes on a user's model, in real processes: what they answer, and what their faults cost."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sys
import tempfile
import weakref
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, load_model, parser

from actconform.checking.model_file import ModelFile
from actconform.checking.open_runtime import open_runtime
from actconform.checking.runs import Marks, RunFailure, RuntimeRuns
from actconform.errors import NoEnvironmentError, UsageError
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.settings import BackendConfig, Config
from actconform.workers.client import Worker
from actconform.workers.from_settings import configured, configured_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.plugin.loader import Catalog
    from actconform.workers.protocol import Job, JobResult

HERE = Path(__file__).parent
PLUGIN = "graph_runtimes:Plugin"
MODEL = parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x) => (float[n] y) <float[1] w = {-2.0}> { h = Mul(x, w)  r = Relu(h)  y = Add(r, x) }
""")
X = np.array([1.0, 2.5, 0.0], np.float32)
SAMPLE = {"x": X, "no input": X}
VALUES = {"x": X, "h": -2 * X, "r": 0 * X, "y": X, "w": np.array([-2.0], np.float32)}
SIZES = dict.fromkeys(VALUES, 12)
TYPES = dict.fromkeys(VALUES, TensorProto.FLOAT)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        return load_plugins(entry_points=[*installed(), EntryPoint(PLUGIN, PLUGIN, GROUP)])


@pytest.fixture(scope="module")
def file() -> Iterator[ModelFile]:
    with ModelFile(MODEL) as written:
        yield written


def settings(*names: str, **options: Any) -> Config:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return Config(backends={name: BackendConfig(env={"PYTHONPATH": path}) for name in names}, **options)


def opened(name: str, catalog: Catalog, timeout: float = 30.0) -> RuntimeRuns:
    return open_runtime(name, catalog, settings(name), timeout=timeout, plugins=(PLUGIN,))


@pytest.fixture(scope="module")
def right(catalog: Catalog) -> Iterator[RuntimeRuns]:
    with opened("right", catalog) as runs:
        yield runs


def marks(*names: str) -> Marks:
    return Marks(names, TYPES, SIZES)


def test_final_outputs_of_one_sample_and_of_several(right: RuntimeRuns, file: ModelFile) -> None:
    assert right.start() == {"right": "1.0", "file": "False"}
    assert right.levels == ("slow", "fast")
    first, second = right.outputs_of_all(file, [SAMPLE, {"x": -X}], "slow")
    assert right.outputs_of_all(file, []) == []
    np.testing.assert_array_equal(first.outputs["y"], X)
    np.testing.assert_array_equal(second.outputs["y"], X)
    assert (first.unsteady, first.mutated, first.failure) == ((), (), None)
    assert first.run_seconds > 0
    assert first.load_seconds > 0


def test_marked_tensors_come_in_order_in_runs_of_the_budget_and_inputs_and_initializers_too(
    right: RuntimeRuns, file: ModelFile
) -> None:
    pieces = list(right.marked(file, SAMPLE, marks("x", "h", "w", "r", "y"), budget_bytes=30))
    assert [piece.names for piece in pieces] == [("x", "h"), ("w", "r"), ("y",)]
    for piece in pieces:
        assert (piece.final_unchanged, piece.moved, piece.unsteady) == (True, (), ())
        for name in piece.names:
            np.testing.assert_array_equal(piece.values[name], VALUES[name], err_msg=name)
    small = list(right.marked(file, SAMPLE, marks("h", "r"), budget_bytes=1))
    assert [piece.names for piece in small] == [("h",), ("r",)]
    assert len(list(right.marked(file, SAMPLE, marks("h", "h", "r"), budget_bytes=1 << 30))) == 1
    with pytest.raises(ValueError, match="no tensor 'q'"):
        list(right.marked(file, SAMPLE, Marks(["q"], {}, {"q": 1}), budget_bytes=1))


def test_a_name_that_a_mark_would_take_stays_free() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n] x) => (float[n] y) { a = Neg(x)  y = Neg(a) }""")
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "x.marked"
    with ModelFile(model) as file, file.marked(["x", "x.marked"], {}) as (path, called):
        assert called == {"x": "x.marked'", "x.marked": "x.marked"}
        assert path.exists()
    assert not path.exists()


def test_survivors_are_the_runtimes_or_it_does_not_say(catalog: Catalog, file: ModelFile) -> None:
    with opened("right", catalog) as runs:
        assert runs.surviving(file, "slow") == ("h", "r", "y")
        assert runs.surviving(file, "fast") == ("r", "y")
    with opened("silent", catalog) as runs:
        expected = RunFailure("refused", "silent does not say what survives its optimization")
        assert runs.surviving(file) == expected


def test_what_differs_between_two_calls_and_what_is_changed_in_place_is_named(
    catalog: Catalog, file: ModelFile
) -> None:
    with opened("unsteady", catalog) as runs:
        first, second = runs.outputs_of_all(file, [SAMPLE, SAMPLE])
        assert (first.unsteady, second.unsteady) == (("y",), ("y",))
        (piece,) = runs.marked(file, SAMPLE, marks("h", "r"), budget_bytes=1000)
        assert set(piece.unsteady) == {"h", "y"}
    with opened("mutates", catalog) as runs:
        assert runs.outputs(file, SAMPLE).mutated == ("x",)


def test_marks_that_change_the_final_outputs_are_named(catalog: Catalog, file: ModelFile) -> None:
    with opened("fuses", catalog) as runs:
        with_h, without = runs.marked(file, SAMPLE, marks("h", "r"), budget_bytes=12)
        assert (with_h.moved, with_h.final_unchanged) == (("y",), False)
        assert (without.moved, without.final_unchanged) == ((), True)
        (wrong,) = runs.marked(file, SAMPLE, marks("r"), budget_bytes=12, final={"y": X + 1})
        assert wrong.moved == ("y",)


def test_a_tensor_that_cannot_be_marked_costs_no_other(catalog: Catalog, file: ModelFile) -> None:
    with opened("refuses-marks", catalog) as runs:
        pieces = list(runs.marked(file, SAMPLE, marks("x", "h", "r", "y"), budget_bytes=1000))
        assert [(piece.names, piece.failure is None) for piece in pieces] == [
            (("x",), True),
            (("h",), False),
            (("r", "y"), True),
        ]
        assert pieces[1].failure == RunFailure("refused", "h cannot be an output here")
        assert not pieces[1].final_unchanged
    with opened("forgets", catalog) as runs:
        (piece,) = runs.marked(file, SAMPLE, marks("h"), budget_bytes=1000)
        assert piece.failure == RunFailure("error", "forgets gave no value of h, which were outputs of the graph")


def test_refusals_and_what_is_missing_are_failures_in_the_runtimes_words(catalog: Catalog, file: ModelFile) -> None:
    with opened("silent", catalog) as runs:
        first, second = runs.outputs_of_all(file, [SAMPLE, SAMPLE])
        assert first.failure == second.failure == RunFailure("refused", "no conversion rule for anything")
        (piece,) = runs.marked(file, SAMPLE, marks("h", "r"), budget_bytes=1000)
        assert (piece.names, piece.failure) == (("h", "r"), first.failure)
    with opened("no-accelerator", catalog) as runs:
        missing = RunFailure("unavailable", "libnone.so.9 is missing: install it")
        assert runs.start() == missing
        assert runs.outputs(file, SAMPLE).failure == missing


def test_a_sample_that_kills_the_runtime_costs_no_other_sample(catalog: Catalog, file: ModelFile) -> None:
    with opened("dies", catalog, timeout=4.0) as runs:
        first, killed, hung, large = runs.outputs_of_all(file, [SAMPLE, {"x": -X}, {"x": X + 1e10}, {"x": X + np.inf}])
        assert first.failure is None
        np.testing.assert_array_equal(first.outputs["y"], X)
        assert killed.failure is not None
        assert killed.failure.kind == "crash"
        assert "was killed by SIGKILL" in killed.failure.message
        assert "while it ran the model" in killed.failure.message
        assert hung.failure is not None
        assert hung.failure.kind == "timeout"
        assert large.failure is not None
        assert (large.failure.kind, "16 GiB wanted" in large.failure.message) == ("memory", True)
        assert runs.outputs(file, SAMPLE).failure is None


def test_ctrl_c_costs_the_process_and_leaves_no_file(
    catalog: Catalog, file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actconform.workers.process import WorkerProcess

    with opened("right", catalog) as runs:
        runs.start()
        files = set(file.path.parent.iterdir())

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "readinto", interrupt)
            with pytest.raises(KeyboardInterrupt):
                list(runs.marked(file, SAMPLE, marks("h"), budget_bytes=1000, final={"y": X}))
        assert set(file.path.parent.iterdir()) == files
        assert runs.outputs(file, SAMPLE).failure is None
    ended = runs.outputs(file, SAMPLE).failure
    assert ended is not None
    assert ended.kind == "unavailable"
    folder = file.path.parent
    assert folder.exists()


def test_the_file_has_the_model_and_the_marks_in_one_graph_and_is_removed() -> None:
    before = MODEL.SerializeToString()
    with ModelFile(MODEL) as file:
        folder = file.path.parent
        assert load_model(file.path) == MODEL
        with file.marked(["h", "y", "w"], {"h": TensorProto.FLOAT}) as (path, called):
            assert called == {"h": "h", "y": "y", "w": "w.marked"}
            marked = load_model(path)
        names = [(value.name, value.type.tensor_type.elem_type) for value in marked.graph.output]
        assert names == [("y", TensorProto.FLOAT), ("h", TensorProto.FLOAT), ("w.marked", 0)]
        del marked.graph.output[1:], marked.graph.node[3:]
        assert marked == MODEL
    assert MODEL.SerializeToString() == before
    assert not folder.exists()


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ModelFile(MODEL) as file:
        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(UsageError, match=r"cannot be written to .*: No space left on device; set TMPDIR"):
            file.marked(["h"], {}).__enter__()
        with pytest.raises(UsageError, match="No space left"):
            ModelFile(MODEL)
        assert [path.name for path in file.path.parent.iterdir()] == ["model.onnx"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rigth", "rigth is no runtime; did you mean right"),
        ("framework", "framework is a framework, which runs no graphs"),
        ("right@1.0", "right does not name the package of which this would be a version; write requirements"),
        ("versioned@fast", "'fast' after the @ is no version; did you mean versioned@2fast"),
    ],
)
def test_a_name_that_is_no_runtime_is_refused(name: str, message: str, catalog: Catalog) -> None:
    with pytest.raises(UsageError, match=message):
        open_runtime(name, catalog, settings())


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 70.0), (500.0, 500.0)])
def test_a_process_may_take_as_long_to_start_as_a_call(
    timeout: float | None, seconds: float, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []

    def worker(name: str, config: Config, plugins: Sequence[str]) -> Worker:
        made.append(config.timeout)
        return configured_worker(name, config, plugins)

    monkeypatch.setattr("actconform.checking.open_runtime.configured_worker", worker)
    with open_runtime("right", catalog, settings("right", timeout=70.0), timeout=timeout, plugins=(PLUGIN,)):
        assert made == [seconds]


def test_what_stands_for_its_variants_alone_is_not_offered(catalog: Catalog) -> None:
    assert catalog.backends["versioned"].variants
    with pytest.raises(UsageError, match="versionde is no runtime") as caught:
        open_runtime("versionde", catalog, settings())
    assert "versioned" not in str(caught.value)


def test_a_version_has_an_environment_of_its_own_and_a_variant_that_of_its_runtime(
    catalog: Catalog, file: ModelFile, wheels: Path
) -> None:
    texts: list[str] = []
    base = msgspec.structs.replace(settings("versioned").backends["versioned"], requirements=("wobble==2.*",))
    config = Config(backends={"versioned": base})
    for name in ("versioned@2", "versioned@2fast"):
        with open_runtime(name, catalog, config, texts.append, plugins=(PLUGIN,)) as runs:
            facts = runs.start()
            assert not isinstance(facts, RunFailure)
            assert facts["wobble"] == "2.0"
            answer = runs.outputs(file, SAMPLE)
            np.testing.assert_array_equal(answer.outputs["y"], X)
            assert answer.mutated == (("x",) if name == "versioned@2fast" else ())
    assert texts == ["versioned@2: making an environment with wobble==2.*"]
    assert len(list(wheels.glob("*/environment.json"))) == 1
    with pytest.raises(NoEnvironmentError, match=r"^versioned@7: wobble==7\.\* cannot be installed"):
        open_runtime("versioned@7", catalog, config)


def test_a_version_that_the_driver_has_needs_no_environment(
    catalog: Catalog, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog.backends["versioned"], "packages", ("msgspec", "nothing-of-the-kind"))
    with open_runtime(f"versioned@{msgspec.__version__}", catalog, settings()) as runs:
        assert runs.name == f"versioned@{msgspec.__version__}"
    assert not wheels.exists()
    with pytest.raises(NoEnvironmentError, match=r"msgspec==0\.0\.1 cannot be installed"):
        open_runtime("versioned@0.0.1", catalog, settings())


def test_a_command_and_a_label_of_the_settings_are_runtimes(catalog: Catalog, file: ModelFile, tmp_path: Path) -> None:
    program = tmp_path / "negate.py"
    program.write_text(
        "import sys, numpy, pathlib\n"
        "inputs, outputs = map(pathlib.Path, sys.argv[2:])\n"
        "numpy.save(outputs / 'y.npy', -numpy.load(inputs / 'x.npy'))\n"
    )
    config = settings("right@again")
    command = BackendConfig(command=f"{sys.executable} {program} {{model}} {{inputs}} {{outputs}}")
    config = Config(backends={**config.backends, "negate": command})
    both = configured(catalog, config)
    with open_runtime("negate", both, config) as runs:
        np.testing.assert_array_equal(runs.outputs(file, SAMPLE).outputs["y"], -X)
        assert runs.levels == ()
    with open_runtime("right@again", both, config, plugins=(PLUGIN,)) as runs:
        np.testing.assert_array_equal(runs.outputs(file, SAMPLE).outputs["y"], X)


ELEMENT_TYPES = {
    "f16": (TensorProto.FLOAT16, np.float16),
    "b16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "e4": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "e5": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "i8": (TensorProto.INT8, np.int8),
    "u64": (TensorProto.UINT64, np.uint64),
    "flag": (TensorProto.BOOL, np.bool_),
    "f64": (TensorProto.DOUBLE, np.float64),
}


@pytest.fixture(scope="module")
def ort(catalog: Catalog) -> Iterator[RuntimeRuns]:
    pytest.importorskip("onnxruntime")
    with open_runtime("ort-cpu", catalog, Config(), timeout=60.0) as runs:
        yield runs


@pytest.mark.parametrize("values", [[1.0, 0.0, 2.0], []])
def test_onnxruntime_shows_tensors_of_all_element_types_also_without_elements(
    ort: RuntimeRuns, values: list[float]
) -> None:
    casts = [helper.make_node("Cast", ["x"], [name], to=number) for name, (number, _) in ELEMENT_TYPES.items()]
    back = [helper.make_node("Cast", [name], [f"{name}.f32"], to=TensorProto.FLOAT) for name in ELEMENT_TYPES]
    total = [helper.make_node("Sum", [f"{name}.f32" for name in ELEMENT_TYPES], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([*casts, *back, *total], "casts", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = np.array(values, np.float32)
    types = {name: number for name, (number, _) in ELEMENT_TYPES.items()}
    asked = Marks(list(types), types, dict.fromkeys(types, 8))
    with ModelFile(model) as file:
        (piece,) = ort.marked(file, {"x": x}, asked, budget_bytes=1000, level="disabled")
    assert piece.final_unchanged
    for name, (_, dtype) in ELEMENT_TYPES.items():
        assert piece.values[name].dtype == dtype
        np.testing.assert_array_equal(piece.values[name], x.astype(dtype), err_msg=name)


def test_onnxruntime_gives_what_survives_and_its_marks_change_nothing(ort: RuntimeRuns) -> None:
    rng = np.random.default_rng(1)
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,16,9,9] x, float[16,16,3,3] w, float[16] b) => (float[1,16,9,9] y) {
            c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  d = Conv<pads=[1,1,1,1]>(r, w, b)  s = Sigmoid(d)
            t = Add(s, x)  y = Softmax<axis=1>(t) }""")
    sample = {"x": rng.normal(size=(1, 16, 9, 9)), "w": rng.normal(size=(16, 16, 3, 3)), "b": rng.normal(size=16)}
    sample = {name: array.astype(np.float32) for name, array in sample.items()}
    for name in ("w", "b"):
        tensor = model.graph.initializer.add(
            name=name, data_type=TensorProto.FLOAT, dims=sample[name].shape, raw_data=sample[name].tobytes()
        )
        assert tensor.raw_data
    del model.graph.input[1:]
    with ModelFile(model) as file:
        assert ort.surviving(file, "disabled") == ("c", "r", "d", "s", "t", "y")
        for level in ("extended", "all"):
            names = ort.surviving(file, level)
            assert not isinstance(names, RunFailure)
            assert {"r", "y"} - {"r"} <= set(names)
            assert "c" not in names, "it is fused with its Relu"
            sizes = dict.fromkeys(names, 5184)
            for piece in ort.marked(file, sample, Marks(names, {}, sizes), budget_bytes=11000, level=level):
                assert piece.final_unchanged, (level, piece)
                assert len(piece.names) <= 2
            assert not list(file.path.parent.glob("*/")), "the optimized graph is removed"


def test_onnxruntime_says_what_it_refuses(ort: RuntimeRuns) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Nothing(x) }'
    )
    with ModelFile(model) as file:
        failure = ort.outputs(file, {"x": X}).failure
        assert failure is not None
        assert (failure.kind, "Nothing" in failure.message) == ("refused", True)
        assert ort.surviving(file, "all") == failure
    with ModelFile(MODEL) as file:
        failure = ort.outputs(file, {"x": X.astype(np.float64)}).failure
        assert failure is not None
        assert (failure.kind, "tensor(double)" in failure.message) == ("error", True)
        (piece,) = ort.marked(file, SAMPLE, Marks(["h"], {"h": TensorProto.INT64}, {"h": 12}), budget_bytes=12)
        assert piece.failure is not None
        assert "int64" in piece.failure.message


def test_a_model_of_more_than_two_gib_has_its_weights_in_a_file_beside_it(
    ort: RuntimeRuns, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actconform.checking import model_file

    weights = np.arange(1000, dtype=np.float32)
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17], producer_name: "a test">
        g (float[n] x) => (float[n] y) <float[1] w = {-2.0}> { h = Mul(x, big)  r = Mul(x, listed)  z = Add(h, r)  y = Mul(z, w) }""")
    model.graph.initializer.append(helper.make_tensor("big", TensorProto.FLOAT, [1000], weights.tobytes(), raw=True))
    model.graph.initializer.append(helper.make_tensor("listed", TensorProto.FLOAT, [1000], weights + 1))
    before = model.SerializeToString()
    monkeypatch.setattr(model_file, "MOST_BYTES", 4000)
    x = np.full(1000, 0.5, np.float32)
    with ModelFile(model) as file:
        assert not file.single
        assert file.path.stat().st_size < 1000
        np.testing.assert_array_equal(ort.outputs(file, {"x": x}).outputs["y"], -2 * weights - 1)
        (piece,) = ort.marked(file, {"x": x}, Marks(["r"], {}, {"r": 4000}), budget_bytes=4000)
        np.testing.assert_array_equal(piece.values["r"], (weights + 1) / 2)
        assert ort.surviving(file, "disabled") == ("h", "r", "z", "y")
        with opened("right", catalog) as runs:
            failure = runs.outputs(file, {"x": x}).failure
            assert failure == RunFailure("refused", "right takes graphs of at most 2 GiB, and this one has more")
    assert model.SerializeToString() == before


def test_values_are_let_go_before_the_next_run(
    right: RuntimeRuns, file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = right.marked(file, SAMPLE, marks("h", "r"), budget_bytes=12)
    first = weakref.ref(next(pieces).values["h"])
    run = Worker.run

    def run_in_turn(worker: Worker, job: Job, timeout: float) -> JobResult:
        gc.collect()
        assert first() is None
        return run(worker, job, timeout)

    monkeypatch.setattr(Worker, "run", run_in_turn)
    assert next(pieces).names == ("r",)
