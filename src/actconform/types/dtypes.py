"""The binary floating-point formats that are compared."""

from __future__ import annotations

import struct

import msgspec


class FloatFormat(msgspec.Struct, frozen=True):
    """An IEEE-like binary format: `precision` counts the hidden bit, `emin` and `emax` are exponents of normal numbers."""

    name: str
    bits: int
    precision: int
    emin: int
    emax: int

    @property
    def unit_roundoff(self) -> float:
        """Half the gap between 1 and the next number, u = 2**-precision."""
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.emin

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (self.emin - self.precision + 1)

    @property
    def largest(self) -> float:
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax

    @property
    def overflow(self) -> float:
        """The smallest magnitude that rounds to infinity: the largest number plus half its ULP."""
        return (2.0 - 2.0**-self.precision) * 2.0**self.emax


DTYPES: dict[str, FloatFormat] = {
    "f32": FloatFormat("f32", 32, 24, -126, 127),
    "f16": FloatFormat("f16", 16, 11, -14, 15),
    "bf16": FloatFormat("bf16", 16, 8, -126, 127),
}
TRAINED_DTYPE = "f32"  # in which experiments train


def from_hex(pattern: str, fmt: FloatFormat) -> float:
    """Return the number with that bit pattern in `fmt`; inverse of `tolerance.ulp.to_hex`."""
    bits = int(pattern, 16)
    if fmt.name == "f16":
        half: float = struct.unpack("<e", struct.pack("<H", bits))[0]
        return half
    single: float = struct.unpack("<f", struct.pack("<I", bits << 16 if fmt.name == "bf16" else bits))[0]
    return single
