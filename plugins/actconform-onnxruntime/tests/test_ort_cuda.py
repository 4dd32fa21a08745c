"""ort-cuda without a GPU: a fake onnxruntime and a fake driver stand in for every way in which CUDA can be missing."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actconform import Artifact, Unavailable, Unsupported
from actconform.catalog.kernels import UNARY
from actconform.onnx.author.exporter import author
from actconform_onnxruntime import cuda, session
from actconform_onnxruntime.backend import OrtCuda

NEEDED = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1"]
ARTIFACT = Artifact(model=b"graph", opset=24, path="operator: Elu")


class Driver:
    """libcuda.so.1, libcudart, libcudnn and libnvidia-ml as far as they are asked."""

    def __init__(self, *, status: int = 0, devices: int = 1, version: int = 13000) -> None:
        self.status, self.devices, self.version = status, devices, version

    def cuInit(self, _: int) -> int:  # noqa: N802  NVIDIA's name
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, *_: Any) -> int:  # noqa: N802
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetName(self, name: Any, *_: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA Fake"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, _: Any) -> int:  # noqa: N802
        memory._obj.value = 80 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cudaRuntimeGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def cudnnGetVersion(self) -> int:  # noqa: N802
        return 92801

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0


class Machine:
    """What the dynamic loader finds."""

    def __init__(self, *missing: str, driver: Driver | None = None) -> None:
        self.missing, self.driver = missing, driver or Driver()

    def load(self, name: str) -> Any:
        if name in self.missing:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return self.driver


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
        InferenceSession=types.SimpleNamespace(get_provider_graph_assignment_info=None),
        preload_dlls=lambda: print("Failed to load libcublasLt.so.13"),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(cuda, "_needed", lambda _: [*NEEDED, "libc.so.6"])
    return fake


def test_a_release_that_keeps_no_record_of_placement_is_too_old(gpu_package: types.ModuleType) -> None:
    del gpu_package.InferenceSession.get_provider_graph_assignment_info
    assert cause(Machine()) == "this ONNX Runtime does not say where it put the nodes of a graph: take 1.24 or newer"


def test_a_release_without_preloading_is_asked_all_the_same(gpu_package: types.ModuleType) -> None:
    del gpu_package.preload_dlls
    assert cuda.device_facts(Machine().load)["cuda"] == "13.0"


def cause(machine: Machine) -> str:
    with pytest.raises(Unavailable) as unavailable:
        cuda.device_facts(machine.load)
    return str(unavailable.value)


@pytest.mark.usefixtures("gpu_package")
def test_with_everything_there_the_device_is_a_fact() -> None:
    facts = cuda.device_facts(Machine().load)
    assert facts == {
        "device": "NVIDIA Fake",
        "compute_capability": "9.0",
        "memory": "81920 MiB",
        "cuda_driver": "13.0",
        "cuda": "13.0",
        "cuda_runtime": "13.2",
        "cudnn": "9.28.1",
        "driver": "580.65.06",
    }


@pytest.mark.usefixtures("gpu_package")
def test_a_machine_that_hides_the_drivers_own_version_lacks_that_fact_alone() -> None:
    assert cuda.device_facts(Machine("libnvidia-ml.so.1").load)["driver"] == "unknown"


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
    assert {library.package for library in report if not library.found} == {"nvidia-cudnn-cu13"}
    assert capsys.readouterr().out == "", "standard output may be a pipe to the driver"


def test_libraries_are_looked_for_once_those_of_the_wheels_are_loaded(gpu_package: types.ModuleType) -> None:
    said: list[str] = []
    gpu_package.__dict__.update(preload_dlls=lambda: said.append("preload"))
    cuda.cuda_report(said.append)
    assert said == ["preload", *NEEDED, "libcudnn.so.9"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_needed_reads_what_the_loader_reads() -> None:
    from numpy.linalg import _umath_linalg

    names = cuda._needed(Path(_umath_linalg.__file__))
    assert any(name.startswith("libc.so") for name in names)
    assert all(".so" in name for name in names)
    assert cuda._needed(Path(__file__)) == []


OPTIONS = json.loads(Path(__file__).with_name("recorded_assignments.json").read_bytes())["options"]


def test_tf32_and_the_search_for_convolutions_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    facts = {
        "tf32": "on",
        "tf32_override": "none",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cuda_options": "as by default",
    }
    assert cuda.option_facts(OPTIONS) == facts
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert cuda.option_facts({**OPTIONS, "use_tf32": "0"}) == {**facts, "tf32": "off", "tf32_override": "0"}
    assert cuda.option_facts({})["tf32"] == "unknown"


class Doubling:
    """A session on the device, for the facts."""

    def __init__(self, providers: list[str], *, flushes: bool = False) -> None:
        self.providers, self.flushes = providers, flushes

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: OPTIONS, CPU: {}}

    def run(self, _: object, inputs: dict[str, Any]) -> list[Any]:
        return [inputs["x"] * (0 if self.flushes else 2)]


@pytest.mark.parametrize(("flushes", "subnormals"), [(False, "kept"), (True, "flushed")])
def test_facts_are_of_package_device_options_and_arithmetic(
    gpu_package: types.ModuleType, monkeypatch: pytest.MonkeyPatch, flushes: bool, subnormals: str
) -> None:
    said: list[str] = []
    gpu_package.__dict__.update(preload_dlls=lambda: said.append("preload"))
    found = {"device": "NVIDIA Fake", "compute_capability": "9.0"}
    monkeypatch.setattr(cuda, "device_facts", lambda: found)

    def load(_: bytes, provider: str) -> Doubling:
        said.append(provider)
        return Doubling([CUDA, CPU], flushes=flushes)

    monkeypatch.setattr(session, "load", load)
    facts = OrtCuda().facts()
    assert said == ["preload", CUDA], "CUDA's libraries are loaded before a session is made"
    assert facts["subnormals"] == subnormals
    assert {"onnxruntime", "threads", "device", "compute_capability", "tf32", "cudnn_conv_algo_search"} <= facts.keys()
    assert all(isinstance(value, str) and value for value in facts.values())


def test_a_run_conforms_without_a_gpu() -> None:
    assert OrtCuda.optional
    assert OrtCuda.provider == CUDA


def refused(words: str) -> Any:
    def load(*_: object) -> None:
        raise Unsupported(words)

    return load


@pytest.mark.usefixtures("gpu_package")
def test_a_refusal_keeps_the_runtimes_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "load", refused("NOT_IMPLEMENTED: Could not find an implementation for Elu(22)"))
    with pytest.raises(Unsupported, match=r"^NOT_IMPLEMENTED: Could not find an implementation for Elu\(22\)$"):
        OrtCuda().load(ARTIFACT, "bf16")


@pytest.mark.usefixtures("gpu_package")
def test_a_device_on_which_nothing_runs_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "device_facts", lambda: {"device": "NVIDIA Fake", "compute_capability": "7.0"})
    monkeypatch.setattr(session, "load", refused("FAIL: no kernel image is available"))
    with pytest.raises(Unavailable, match="runs nothing on it: FAIL: no kernel image is available"):
        OrtCuda().facts()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_on_this_machine_cuda_either_says_what_it_lacks_or_runs_there() -> None:
    """No fake: with the real onnxruntime, a number under CUDA's name comes from a CUDA device or not at all."""
    backend = OrtCuda()
    artifact = author(next(kernel for kernel in UNARY if kernel.name == "relu"), "f32")
    try:
        facts = backend.facts()
    except Unavailable as cause:
        with pytest.raises(Unavailable, match=re.escape(str(cause))):
            backend.load(artifact, "f32")
        return
    assert facts["device"] != "cpu"
    program = backend.load(artifact, "f32")
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(program.forward({"x": x})["y"], np.array([0, 2], np.float32))
    once = program.prepare_call({"x": x})
    once()
    (y,) = once.outputs.values()  # type: ignore[attr-defined]
    assert y.device_name() == "cuda"
    np.testing.assert_array_equal(y.numpy(), np.array([0, 2], np.float32))
    assert program.placement == {CUDA: ("Relu",)}
