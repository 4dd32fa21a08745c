"""ort-cuda without a GPU: a fake onnxruntime and a fake driver stand in for every way in which CUDA can be missing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actconform import Artifact, Unavailable, Unsupported
from actconform.catalog.kernels import UNARY
from actconform.onnx.author import author
from actconform_onnxruntime import cuda, session
from actconform_onnxruntime.backend import OrtCuda

NEEDED = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1"]
ARTIFACT = Artifact(model=b"graph", opset=24, path="operator: Elu")


class Driver:
    """libcuda.so.1 as far as it is asked."""

    def __init__(self, *, status: int = 0, devices: int = 1, version: int = 13000) -> None:
        self.status, self.devices, self.version = status, devices, version

    def cuInit(self, _: int) -> int:  # noqa: N802  NVIDIA's name
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetName(self, name: Any, *_: int) -> int:  # noqa: N802
        name.value = b"NVIDIA Fake"
        return 0


class Machine:
    """What the dynamic loader finds."""

    def __init__(self, *missing: str, driver: Driver | None = None) -> None:
        self.missing, self.driver = missing, driver or Driver()

    def load(self, name: str) -> Any:
        if name in self.missing:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return self.driver


class Part:
    def __init__(self, ep_name: str, *operators: str) -> None:
        self.ep_name = ep_name
        self.operators = operators

    def get_nodes(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(op_type=operator) for operator in self.operators]


class Session:
    """An InferenceSession that was put on `providers`, its nodes on `parts`."""

    def __init__(self, providers: list[str], *parts: Part) -> None:
        self.providers, self.parts = providers, parts

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> tuple[Part, ...]:
        return self.parts

    def get_inputs(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(name="x", type="tensor(float)")]

    def get_outputs(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(name="y", type="tensor(float)")]

    def run(self, _: object, inputs: dict[str, Any]) -> list[Any]:
        return [inputs["x"] + inputs["x"]]


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def gpu_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """An installed onnxruntime-gpu 1.31.1 whose provider needs NEEDED."""
    fake = types.ModuleType("onnxruntime")
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    fake.__dict__.update(
        __file__=str(tmp_path / "__init__.py"),
        __version__="1.31.1",
        package_name="onnxruntime-gpu",
        cuda_version="13.0",
        get_available_providers=lambda: [CUDA, CPU],
        get_build_info=lambda: "ORT Build Info: build type=Release",
        preload_dlls=lambda: print("Failed to load libcublasLt.so.13"),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(cuda, "_needed", lambda _: [*NEEDED, "libc.so.6"])
    return fake


def cause(machine: Machine) -> str:
    with pytest.raises(Unavailable) as unavailable:
        cuda.device_facts(machine.load)
    return str(unavailable.value)


@pytest.mark.usefixtures("gpu_package")
def test_with_everything_there_the_device_is_a_fact() -> None:
    facts = cuda.device_facts(Machine().load)
    assert facts == {"device": "NVIDIA Fake", "cuda_driver": "13.0", "cuda": "13.0"}


def test_the_cpu_package_is_named(gpu_package: types.ModuleType) -> None:
    gpu_package.__dict__.update(get_available_providers=lambda: [CPU])
    told = cause(Machine())
    assert told.startswith("onnxruntime 1.31.1 is the CPU package: ")
    assert 'pip install "actconform-onnxruntime[cuda]"' in told


@pytest.mark.usefixtures("gpu_package")
def test_a_missing_library_is_named_with_who_wants_it_and_the_mend() -> None:
    assert cause(Machine("libcudnn.so.9")) == (
        "libcudnn.so.9 missing: wanted by onnxruntime-gpu 1.31.1 (CUDA 13, cuDNN 9): pip install nvidia-cudnn-cu13"
    )


def test_wheels_of_cuda_12_are_asked_for_by_their_names(gpu_package: types.ModuleType) -> None:
    gpu_package.__dict__.update(cuda_version="12.8")
    assert cause(Machine("libcurand.so.10")).endswith("(CUDA 12, cuDNN 9): pip install nvidia-curand-cu12")


@pytest.mark.usefixtures("gpu_package")
def test_a_missing_driver_is_no_matter_of_pip() -> None:
    told = cause(Machine("libcuda.so.1"))
    assert told.startswith("no NVIDIA driver: libcuda.so.1 missing")
    assert "pip install" not in told


@pytest.mark.usefixtures("gpu_package")
def test_all_that_is_missing_is_told_at_once() -> None:
    told = cause(Machine(*NEEDED, "libcudnn.so.9"))
    assert all(name in told for name in (*NEEDED, "libcudnn.so.9"))
    assert "pip install nvidia-cublas nvidia-curand nvidia-cuda-runtime nvidia-cudnn-cu13" in told


@pytest.mark.parametrize("driver", [Driver(status=100), Driver(devices=0)])
@pytest.mark.usefixtures("gpu_package")
def test_a_driver_without_a_device_is_told(driver: Driver) -> None:
    assert cause(Machine(driver=driver)).startswith("no CUDA device")


@pytest.mark.usefixtures("gpu_package")
def test_an_old_driver_is_told() -> None:
    told = cause(Machine(driver=Driver(version=12040)))
    assert told.startswith("the NVIDIA driver supports CUDA 12.4, too old for onnxruntime-gpu 1.31.1 (CUDA 13")


@pytest.mark.usefixtures("gpu_package")
def test_the_report_says_of_each_library_whether_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    report = cuda.cuda_report(Machine("libcudnn.so.9").load)
    assert {library.name: library.found for library in report} == {
        **dict.fromkeys(NEEDED, True),
        "libcudnn.so.9": False,
    }
    assert {library.mend for library in report if not library.found} == {"nvidia-cudnn-cu13"}
    assert capsys.readouterr().out == "", "standard output may be a pipe to the driver"


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_needed_reads_what_the_loader_reads() -> None:
    from numpy.linalg import _umath_linalg

    names = cuda._needed(Path(_umath_linalg.__file__))
    assert any(name.startswith("libc.so") for name in names)
    assert all(".so" in name for name in names)
    assert cuda._needed(Path(__file__)) == []


def on(monkeypatch: pytest.MonkeyPatch, **answers: Session | Unsupported) -> None:
    """Let a session be `strict` where fallback is forbidden and `lax` where it is not."""

    def load(_: bytes, provider: str, **config: str) -> Session:
        assert provider == CUDA
        answer = answers["strict" if config.get("disable_cpu_ep_fallback") == "1" else "lax"]
        if isinstance(answer, Unsupported):
            raise answer
        return answer

    monkeypatch.setattr(session, "load", load)


def test_a_graph_that_runs_on_cuda_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, strict=Session([CUDA, CPU], Part(CUDA, "Elu")))
    program = OrtCuda().load(ARTIFACT, "f32")
    assert program.implementation == "operator: Elu"
    np.testing.assert_array_equal(program.forward({"x": np.ones(2, np.float32)})["y"], 2.0)


def test_a_session_that_went_to_the_cpu_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, strict=Session([CPU], Part(CPU, "Elu")))
    with pytest.raises(RuntimeError, match="asked for CUDAExecutionProvider, got a session on CPUExecutionProvider"):
        OrtCuda().load(ARTIFACT, "f32")


def test_a_node_on_the_cpu_refuses_the_graph_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, strict=Session([CUDA, CPU], Part(CUDA, "Sub"), Part(CPU, "TopK", "Range")))
    with pytest.raises(Unsupported, match="not on CUDA: ONNX Runtime would run TopK, Range on the CPU"):
        OrtCuda().load(ARTIFACT, "f32")


def test_a_forbidden_fallback_tells_which_nodes_wanted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Unsupported(
        "FAIL: This session contains graph nodes ... but fallback to CPU EP has been explicitly disabled"
    )
    on(monkeypatch, strict=refusal, lax=Session([CUDA, CPU], Part(CUDA, "Sub"), Part(CPU, "TopK")))
    with pytest.raises(Unsupported, match="not on CUDA: ONNX Runtime would run TopK on the CPU"):
        OrtCuda().load(ARTIFACT, "f32")


def test_a_forbidden_fallback_of_a_version_that_does_not_tell_stays_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, strict=Unsupported("FAIL: fallback to CPU EP has been disabled"), lax=Session([CUDA, CPU]))
    with pytest.raises(Unsupported, match=r"^FAIL: fallback to CPU EP has been disabled"):
        OrtCuda().load(ARTIFACT, "f32")


def test_a_forbidden_fallback_because_cuda_is_gone_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    on(
        monkeypatch,
        strict=Unsupported("FAIL: fallback to CPU EP has been disabled"),
        lax=Session([CPU], Part(CPU, "Elu")),
    )
    with pytest.raises(RuntimeError, match="got a session on CPUExecutionProvider"):
        OrtCuda().load(ARTIFACT, "f32")


def test_another_refusal_keeps_the_runtimes_words(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, strict=Unsupported("NOT_IMPLEMENTED: Could not find an implementation for Elu(22)"))
    with pytest.raises(Unsupported, match=r"^NOT_IMPLEMENTED: Could not find an implementation for Elu\(22\)$"):
        OrtCuda().load(ARTIFACT, "bf16")


@pytest.mark.usefixtures("gpu_package")
def test_a_device_on_which_nothing_runs_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "device_facts", lambda: {"device": "NVIDIA Fake"})
    on(monkeypatch, strict=Unsupported("FAIL: no kernel image is available"))
    with pytest.raises(Unavailable, match="runs nothing on it: FAIL: no kernel image is available"):
        OrtCuda().facts()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_on_this_machine_cuda_either_says_what_it_lacks_or_runs_there() -> None:
    """No fake: with the real onnxruntime, a number under CUDA's name comes from a CUDA device or not at all."""
    backend = OrtCuda()
    artifact = author(next(kernel for kernel in UNARY if kernel.name == "relu"), "f32")
    try:
        facts = backend.facts()
    except Unavailable:
        with pytest.raises(RuntimeError, match="asked for CUDAExecutionProvider"):
            backend.load(artifact, "f32")
        return
    assert facts["device"] != "cpu"
    y = backend.load(artifact, "f32").forward({"x": np.array([-1, 2], np.float32)})["y"]
    np.testing.assert_array_equal(y, np.array([0, 2], np.float32))
