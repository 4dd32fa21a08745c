"""The first NVIDIA GPU, as the driver describes it: read before a framework is imported, which takes seconds."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

from actconform.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
DRIVER_FIX = "install the NVIDIA driver, and in a container start it with the GPU (docker run --gpus all)"

# CUdevice_attribute of cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


def first_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> dict[str, str]:
    """Return, as facts, name, compute capability and memory of the first GPU, and the CUDA version that the driver supports.

    CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER say which is the first, here as in a framework. `load` opens a library by name
    or raises OSError. Raises `Unavailable` where there is no driver or no device.
    """
    try:
        cuda = load(DRIVER)
    except OSError as error:
        raise Unavailable(f"no NVIDIA driver: {DRIVER} missing: {DRIVER_FIX}") from error
    device, count = ctypes.c_int(0), ctypes.c_int(0)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status or count.value == 0:
        raise Unavailable(
            f"no CUDA device: the NVIDIA driver found none (status {status}): nvidia-smi should list one, and "
            "CUDA_VISIBLE_DEVICES, where it is set, name one"
        )
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    major, minor, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    statuses = (
        cuda.cuDeviceGet(ctypes.byref(device), 0),
        cuda.cuDeviceGetName(name, len(name), device),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(statuses):
        raise Unavailable(
            f"the NVIDIA driver does not tell of its first device (status {max(statuses)}): see nvidia-smi"
        )
    return {
        "device": name.value.decode(),
        "compute_capability": f"{major.value}.{minor.value}",
        "memory": f"{memory.value >> 20} MiB",
        "cuda_driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }
