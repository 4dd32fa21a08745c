"""Whether CUDA can be used from here, and if not, what exactly is missing and how to mend it.

ONNX Runtime itself does not tell: its list of providers holds CUDA wherever the GPU package is installed, and a session
that cannot load CUDA's libraries goes to the CPU with a line in the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[[str], Any]

PROVIDER = "CUDAExecutionProvider"
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# Opened by name at run time, so no header lists it; without it reductions (max, argmax) and convolutions fail.
CUDNN = "libcudnn.so.9"
DRIVER_MEND = "install the NVIDIA driver, and in a container start it with the GPU (docker run --gpus all)"

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
    """A shared library that the CUDA provider loads: whether it was found, who wants it, and the mend if it was not."""

    name: str
    found: bool
    wanted_by: str
    mend: str


def cuda_report(load: Open = ctypes.CDLL) -> list[Library]:
    """Return every library that ONNX Runtime's CUDA provider needs; empty for the CPU package.

    Those of NVIDIA's wheels are found beside ONNX Runtime, others as the system finds libraries. `load` opens one by
    name or raises OSError. On Windows only cuDNN is looked for.
    """
    import onnxruntime

    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not provider.is_file():
        return []
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    names = [name for name in _needed(provider) if name == DRIVER or name.partition(".")[0] in _WHEELS]
    names += [CUDNN] if CUDNN not in names else []
    return [Library(name, _loads(name, load), wanted_by(), _mend(name)) for name in names]


def wanted_by() -> str:
    """Return the package that wants the libraries, with versions: "onnxruntime-gpu 1.31.1 (CUDA 13, cuDNN 9)"."""
    import onnxruntime

    return f"{onnxruntime.package_name} {onnxruntime.__version__} (CUDA {_cuda_major()}, cuDNN 9)"


def device_facts(load: Open = ctypes.CDLL) -> dict[str, str]:
    """Return the device's name and the CUDA versions of driver and build; raise `Unavailable` with the very cause.

    Asked in this order: is it the GPU package, is there a driver, are all libraries there, is the driver new enough, is
    there a device.
    """
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise Unavailable(
            f"onnxruntime {onnxruntime.__version__} is the CPU package: pip uninstall onnxruntime, then "
            'pip install "actconform-onnxruntime[cuda]" (Linux x86-64 and Windows only)'
        )
    missing = [library for library in cuda_report(load) if not library.found]
    if missing:
        raise Unavailable(_told(missing))
    try:
        driver = load(DRIVER)
    except OSError as error:
        raise Unavailable(f"no NVIDIA driver: {DRIVER} missing: {DRIVER_MEND}") from error
    return {**_first_device(driver), "cuda": onnxruntime.cuda_version}


def _told(missing: list[Library]) -> str:
    wheels = [library for library in missing if library.name != DRIVER]
    causes = []
    if len(wheels) < len(missing):
        causes.append(f"no NVIDIA driver: {DRIVER} missing: {DRIVER_MEND}")
    if wheels:
        mends = " ".join(dict.fromkeys(library.mend for library in wheels))
        names = ", ".join(library.name for library in wheels)
        causes.append(f"{names} missing: wanted by {wheels[0].wanted_by}: pip install {mends}")
    return "; ".join(causes)


def _first_device(driver: Any) -> dict[str, str]:
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        raise Unavailable(f"no CUDA device: the NVIDIA driver found none (status {status}): nvidia-smi should list one")
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value // 1000 < int(_cuda_major()):
        supported = f"{version.value // 1000}.{version.value % 1000 // 10}"
        raise Unavailable(f"the NVIDIA driver supports CUDA {supported}, too old for {wanted_by()}: update the driver")
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), 0)
    return {"device": name.value.decode(), "cuda_driver": f"{version.value // 1000}.{version.value % 1000 // 10}"}


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
        return DRIVER_MEND
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
