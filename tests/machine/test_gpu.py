"""The first GPU as a fake driver tells it, and every way in which there is none."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from actconform import Unavailable
from actconform.machine.gpu import DRIVER, first_gpu


class Driver:
    """libcuda.so.1 as far as it is asked."""

    def __init__(self, *, status: int = 0, devices: int = 1, silent: int = 0) -> None:
        self.status, self.devices, self.silent = status, devices, silent

    def cuInit(self, _: int) -> int:  # noqa: N802  NVIDIA's names
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = 7 + number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        assert (size, device.value) == (256, 7)
        name.value = b"NVIDIA Fake"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        assert isinstance(memory._obj, ctypes.c_size_t)
        memory._obj.value = 80 << 30
        return self.silent

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12080
        return 0


def opening(driver: Driver) -> Any:
    def load(name: str) -> Driver:
        assert name == DRIVER
        return driver

    return load


def test_the_first_device_is_told_in_facts() -> None:
    assert first_gpu(opening(Driver())) == {
        "device": "NVIDIA Fake",
        "compute_capability": "9.0",
        "memory": "81920 MiB",
        "cuda_driver": "12.8",
    }


def test_without_a_driver_the_mend_is_named() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(Unavailable, match=rf"^no NVIDIA driver: {DRIVER} missing: install the NVIDIA driver, and in a"):
        first_gpu(load)


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (
            Driver(status=100),
            r"no CUDA device: the NVIDIA driver found none \(status 100\): nvidia-smi should list one",
        ),
        (Driver(devices=0), r"no CUDA device: the NVIDIA driver found none \(status 0\).* CUDA_VISIBLE_DEVICES"),
        (Driver(silent=3), r"does not tell of its first device \(status 3\)"),
    ],
)
def test_a_driver_without_a_device_is_told_with_its_status(driver: Driver, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        first_gpu(opening(driver))


def test_on_this_machine_there_is_one_or_a_cause() -> None:
    try:
        facts = first_gpu()
    except Unavailable as unavailable:
        pytest.skip(f"needs a GPU: {unavailable}")
    assert facts["device"]
    assert float(facts["compute_capability"]) > 0
