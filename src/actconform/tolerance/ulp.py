"""ULP of a format around a real number, and the hexadecimal patterns by which inputs are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]


def ulp_of(truth: F64, fmt: FloatFormat) -> F64:
    """Return the gap between neighbours of `fmt` around each element of `truth`, never below the subnormal gap.

    ulp(r) = 2**(clamp(floor(log2 |r|), emin, emax) - p + 1): Goldberg on the exact value, as in JAX's docs/accuracy.md.
    NaN and infinity give the ULP of the largest binade. Shape as `truth`, float64.
    """
    exponent = truth.view(np.int64) >> 52
    exponent &= 0x7FF
    np.clip(exponent, fmt.emin + 1023, fmt.emax + 1023, out=exponent)
    exponent -= fmt.precision - 1
    exponent <<= 52
    return exponent.view(np.float64)


def contracted(values: F64, fmt: FloatFormat) -> F64:
    """Return `values` with all subnormals moved to zero: sign(v) max(0, |v| - (2**emin - tiny)).

    Errors between contracted numbers are blind to flushing, and nearly unchanged elsewhere (JAX's FTZ metric).
    """
    return np.copysign(np.maximum(0.0, np.abs(values) - (fmt.smallest_normal - fmt.smallest_subnormal)), values)


def to_hex(value: float, fmt: FloatFormat) -> str:
    """Return the bit pattern of a number of `fmt`: "0x42b17218". `value` must be one: it is not rounded."""
    return f"0x{_bits(np.asarray([value], np.float64), fmt)[0]:0{fmt.bits // 4}x}"


def _bits(values: F64, fmt: FloatFormat) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        if fmt.name == "f16":
            return values.astype(np.float16).view(np.uint16)
        single = values.astype(np.float32).view(np.uint32)
    return single >> np.uint32(16) if fmt.name == "bf16" else single
