"""What a program that shows a finding again does with its folder: the text of this file is copied into it, actconform is not needed.

The folder has model.onnx, test_data_set_0 as ONNX lays it out, and expected.npz: of output K the true value truth_K in float64, and
lowest_K and highest_K, between which rounding explains an answer; zero_signs_K is there where the sign of a zero counts.
"""

from __future__ import annotations

import platform
from collections.abc import Callable  # noqa: TC003  copied
from contextlib import suppress
from importlib import metadata
from pathlib import Path  # noqa: TC003
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

DATA = "test_data_set_0"
FORMATS = {
    "float16": (11, -14),
    "bfloat16": (8, -126),
    "float32": (24, -126),
    "float64": (53, -1022),
}  # precision, emin
SHOWN = 5  # elements of an output


def versions(packages: tuple[str, ...]) -> str:
    """Return Python's version, and those of the packages that are installed."""
    installed = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            installed.append(f"{name} {metadata.version(name)}")
    return ", ".join(installed)


def reproduce(
    folder: Path,
    run: Callable[[str, dict[str, Any], str], dict[str, Any]],
    level: str,
    proofs: dict[str, Callable[..., dict[str, Any]]],
) -> int:
    """Run the model, print the elements that rounding does not explain, and return 1 where there are any, else 0.

    `proofs` compute the outputs independently, by what they are called.
    """
    model = onnx.load(str(folder / "model.onnx"))
    inputs = test_inputs(model, folder / DATA)
    got = run(str(folder / "model.onnx"), inputs, level)
    proved = {title: proof(model, inputs) for title, proof in proofs.items()}
    wrong = 0
    with np.load(folder / "expected.npz") as expected:
        for k, value in enumerate(model.graph.output):
            if f"truth_{k}" in expected:
                arrays = {key.rpartition("_")[0]: expected[key] for key in expected if key.endswith(f"_{k}")}
                lines, count = output_lines(value.name, got[value.name], arrays, proved)
                print("\n".join(lines))
                wrong += count
    print(f"the fault is there: {wrong:,} elements" if wrong else "every element is as it should be")
    return 1 if wrong else 0


def test_inputs(model: onnx.ModelProto, folder: Path) -> dict[str, Any]:
    """Return the inputs by name, from input_K.pb."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    files = {name: folder / f"input_{k}.pb" for k, name in enumerate(names)}
    return {name: _read(path) for name, path in files.items() if path.exists()}


def _read(path: Path) -> Any:
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def output_lines(
    name: str, got: Any, expected: dict[str, Any], proved: dict[str, dict[str, Any]]
) -> tuple[list[str], int]:
    """Return one line for each of the worst elements of an output, with what `proved` has there, and how many are wrong."""
    truth = expected["truth"]
    if got.shape != truth.shape:
        return [f"{name}: got the shape {list(got.shape)}, wanted {list(truth.shape)}"], max(got.size, 1)
    value, number = got.astype(np.float64), truth.astype(np.float64)
    rejected = wrong_elements(got, expected)
    with np.errstate(all="ignore"):
        error = np.abs(value - number)
        allowed = np.where(value < number, number - expected["lowest"], expected["highest"] - number)
        ratio = np.nan_to_num(error / allowed, nan=np.inf)
    order = np.argsort(np.where(rejected, ratio, -1.0), axis=None)[::-1][: max(min(SHOWN, int(rejected.sum())), 1)]
    lines = []
    for flat in order if got.size else []:
        place = tuple(int(i) for i in np.unravel_index(flat, got.shape))
        wanted = truth[place].astype(got.dtype)
        line = f"{name}{list(place)}  got {got[place]!s} ({_hex(got[place])})  wanted {wanted!s} ({_hex(wanted)}; {float(number[place])!r})"
        lines.append(line + _size(got.dtype.name, error[place], allowed[place], number[place]))
        lines += [f"    {title}: {_at(outputs, name, place)}" for title, outputs in proved.items() if name in outputs]
    return lines, int(rejected.sum())


def wrong_elements(got: Any, expected: dict[str, Any]) -> Any:
    """Return which elements are not between `lowest` and `highest`, and are not NaN where the truth is."""
    value = got.astype(np.float64)
    truth, lowest, highest = expected["truth"].astype(np.float64), expected["lowest"], expected["highest"]
    anything = np.isneginf(lowest) & np.isposinf(highest)
    explained = ((value >= lowest) & (value <= highest)) | (np.isnan(value) & np.isnan(truth)) | anything
    if got.dtype.kind in "iu" and expected["truth"].dtype.kind in "iu":  # float64 does not tell all of 64 bits apart
        explained &= (lowest < highest) | (got == expected["truth"])
    if "zero_signs" in expected:
        explained &= (value != 0) | (truth != 0) | (np.signbit(value) == np.signbit(truth))
    return ~explained


def _size(dtype: str, error: float, allowed: float, truth: float) -> str:
    """Return an error in ULP of the truth, and against what is allowed."""
    if not np.isfinite(error) or dtype not in FORMATS:
        return ""
    precision, emin = FORMATS[dtype]
    exponent = max(int(np.frexp(truth)[1]) - 1, emin)
    share = f"{error / allowed:,.3g} times the {allowed:.3g} allowed" if allowed > 0 else "where it must be exact"
    return f"  error {error:.3g} = {error / 2.0 ** (exponent - precision + 1):,.3g} ULP, {share}"


def _hex(number: Any) -> str:
    return f"0x{number.tobytes()[::-1].hex()}"


def _at(outputs: dict[str, Any], name: str, place: tuple[int, ...]) -> str:
    array = np.asarray(outputs[name])
    return repr(array[place].item()) if array.ndim == len(place) else f"of shape {list(array.shape)}"
