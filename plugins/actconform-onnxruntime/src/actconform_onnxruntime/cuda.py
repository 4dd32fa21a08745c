"""Whether CUDA can be used from here, and if not, what exactly is missing and how to fix it.

ONNX Runtime itself does not tell: its list of providers holds CUDA wherever the GPU package is installed, and a session
that cannot load CUDA's libraries goes to the CPU with a line in the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform import Unavailable
from actconform.machine.gpu import DRIVER, DRIVER_FIX, first_gpu
from actconform_onnxruntime.placement import NO_RECORD, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Open = Callable[[str], Any]

PROVIDER = "CUDAExecutionProvider"
# Opened by name at run time, so no header lists it; without it reductions (max, argmax) and convolutions fail.
CUDNN = "libcudnn.so.9"
MANAGEMENT = "libnvidia-ml.so.1"  # comes with the driver; only it knows the driver's own version

_WHEELS = {
    "libcublasLt": "nvidia-cublas",
    "libcublas": "nvidia-cublas",
    "libcudart": "nvidia-cuda-runtime",
    "libcudnn": "nvidia-cudnn",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libnvrtc": "nvidia-cuda-nvrtc",
}


class Library(NamedTuple):
    """A shared library that the CUDA provider loads: whether it was found, who wants it, and what to do if it was not."""

    name: str
    found: bool
    wanted_by: str
    package: str


def cuda_report(load: Open = ctypes.CDLL) -> list[Library]:
    """Return every library that ONNX Runtime's CUDA provider needs; empty for the CPU package, and outside Linux.

    Those of NVIDIA's wheels are found beside ONNX Runtime, others as the system finds libraries. `load` opens one by
    name or raises OSError.
    """
    import onnxruntime

    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not provider.is_file():
        return []
    preload()
    names = [name for name in _needed(provider) if name == DRIVER or name.partition(".")[0] in _WHEELS]
    names += [CUDNN] if CUDNN not in names else []
    return [Library(name, _loads(name, load), wanted_by(), _mend(name)) for name in names]


def preload() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where they are installed, so that a session finds them."""
    import onnxruntime

    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21 it finds what lies where the system looks
        return
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()


def wanted_by() -> str:
    """Return the package that wants the libraries, with versions: "onnxruntime-gpu 1.31.1 (CUDA 13, cuDNN 9)"."""
    import onnxruntime

    return f"{onnxruntime.package_name} {onnxruntime.__version__} (CUDA {_cuda_major()}, cuDNN 9)"


def device_facts(load: Open = ctypes.CDLL) -> dict[str, str]:
    """Return the device, driver and versions of CUDA and cuDNN that there are; raise `Unavailable` with the very cause.

    `cuda` is what ONNX Runtime was built with, `cuda_runtime` and `cudnn` what was loaded, `cuda_driver` the newest CUDA that
    the driver supports. Asked in this order: is it the GPU package, is there a driver, are all libraries there, is the driver new enough, is
    there a device.
    """
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        # Both, for they write the same files: of two that are there, what is left of the second is not whole.
        raise Unavailable(
            f"onnxruntime {onnxruntime.__version__} is the CPU package: pip uninstall onnxruntime onnxruntime-gpu, then "
            'pip install "actconform-onnxruntime[cuda]" (Linux x86-64 only)'
        )
    if not hasattr(onnxruntime.InferenceSession, RECORD):
        raise Unavailable(NO_RECORD)
    missing = [library for library in cuda_report(load) if not library.found]
    if missing:
        raise Unavailable(_told(missing))
    gpu = first_gpu(load)
    if int(gpu["cuda_driver"].partition(".")[0]) < int(_cuda_major()):
        raise Unavailable(
            f"the NVIDIA driver supports CUDA {gpu['cuda_driver']}, too old for {wanted_by()}: update the driver"
        )
    return {**gpu, "cuda": onnxruntime.cuda_version, **_loaded_versions(load)}


def option_facts(options: Mapping[str, str]) -> dict[str, str]:
    """Return what of a session's CUDA options may explain a number; they are ONNX Runtime's defaults, none is set here.

    TF32 has 10 bits of mantissa where f32 has 23, in matrix products and convolutions of devices from 8.0 on. In the worker's
    environment NVIDIA_TF32_OVERRIDE=0 turns it off in cuBLAS and cuDNN whatever the option says.
    """
    return {
        "tf32": {"0": "off", "1": "on"}.get(options.get("use_tf32", ""), "unknown"),
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", "none"),
        "cudnn_conv_algo_search": options.get("cudnn_conv_algo_search", "unknown"),
        "cuda_options": "as by default",
    }


def _told(missing: list[Library]) -> str:
    wheels = [library for library in missing if library.name != DRIVER]
    causes = []
    if len(wheels) < len(missing):
        causes.append(f"no NVIDIA driver: {DRIVER} missing: {DRIVER_FIX}")
    if wheels:
        packages = " ".join(dict.fromkeys(library.package for library in wheels))
        names = ", ".join(library.name for library in wheels)
        causes.append(f"{names} missing: wanted by {wheels[0].wanted_by}: pip install {packages}")
    return "; ".join(causes)


def _loaded_versions(load: Open) -> dict[str, str]:
    """Return the versions of CUDA and cuDNN as loaded, and the driver's, "unknown" where it does not tell."""
    runtime = ctypes.c_int(0)
    load(f"libcudart.so.{_cuda_major()}").cudaRuntimeGetVersion(ctypes.byref(runtime))
    cudnn = load(CUDNN).cudnnGetVersion()
    return {
        "cuda_runtime": _dotted(runtime.value),
        "cudnn": f"{cudnn // 10000}.{cudnn % 10000 // 100}.{cudnn % 100}",
        "driver": _driver_version(load),
    }


def _driver_version(load: Open) -> str:
    try:
        management = load(MANAGEMENT)
    except OSError:
        return "unknown"
    text = ctypes.create_string_buffer(96)
    status = management.nvmlInit_v2()
    if status == 0:
        status = management.nvmlSystemGetDriverVersion(text, len(text))
        management.nvmlShutdown()
    return text.value.decode() if status == 0 else "unknown"


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _cuda_major() -> str:
    import onnxruntime

    return str(onnxruntime.cuda_version).split(".", maxsplit=1)[0]


def _loads(name: str, load: Open) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True


def _mend(name: str) -> str:
    if name == DRIVER:
        return DRIVER_FIX
    wheel = _WHEELS[name.partition(".")[0]]
    # From CUDA 13 on only cuDNN's wheel carries the major version in its name.
    return f"{wheel}-cu{_cuda_major()}" if wheel == "nvidia-cudnn" or int(_cuda_major()) < 13 else wheel


def _needed(library: Path) -> list[str]:
    """Return the names in the DT_NEEDED entries of a 64-bit little-endian ELF file, none for other files."""
    with library.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return []
        offset, size, count = (*struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54))
        file.seek(offset)
        table = file.read(size * count)
        segments = [struct.unpack_from("<IIQQQQ", table, i * size) for i in range(count)]
        dynamic = next((s for s in segments if s[0] == 2), None)
        if dynamic is None:
            return []
        file.seek(dynamic[2])
        entries = list(struct.iter_unpack("<QQ", file.read(dynamic[5] // 16 * 16)))
        strings = next(value for tag, value in entries if tag == 5)
        start = next(s[2] + strings - s[3] for s in segments if s[0] == 1 and s[3] <= strings < s[3] + s[5])
        return list(_strings_at(file, [start + value for tag, value in entries if tag == 1]))


def _strings_at(file: Any, places: list[int]) -> Iterator[str]:
    for place in places:
        file.seek(place)
        yield file.read(256).split(b"\0", maxsplit=1)[0].decode()
