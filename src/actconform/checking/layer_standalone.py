"""What a program that exports one layer does with its outputs: the text of this file is copied into it, actconform is not needed.

Its folder has inputs.npz, what the layer read as input_0 and so on, and allowed.npz, by how much the graph's output K may differ from the layer's.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  copied
from typing import Any

import numpy as np
import onnx

from actconform.checking.standalone import output_lines

INPUTS = "inputs.npz"
ALLOWED = "allowed.npz"


def layer_inputs(folder: Path) -> list[Any]:
    """Return the arrays that the layer read."""
    with np.load(folder / INPUTS) as file:
        return [file[f"input_{k}"] for k in range(len(file.files))]


def graph_inputs(path: str, inputs: list[Any]) -> dict[str, Any]:
    """Return the arrays by name that the exported graph takes: an exporter leaves out what no node reads."""
    names = {value.name for value in onnx.load(path).graph.input}
    return {f"input_{k}": array for k, array in enumerate(inputs) if f"input_{k}" in names}


def compared(folder: Path, native: list[Any], got: list[Any]) -> int:
    """Print the elements at which the graph is not what the layer is, and return 1 where there are any, else 0."""
    if len(native) != len(got):
        print(f"the fault is there: the graph has {len(got)} outputs, the layer gives {len(native)}")
        return 1
    wrong = 0
    with np.load(folder / ALLOWED) as file:
        for k, (right, array) in enumerate(zip(native, map(np.asarray, got), strict=True)):
            number = right.astype(np.float64)
            with np.errstate(invalid="ignore"):
                expected = {
                    "truth": number,
                    "lowest": number - file[f"allowed_{k}"],
                    "highest": number + file[f"allowed_{k}"],
                }
            lines, count = output_lines(f"output_{k}", array, expected, {})
            print("\n".join(lines).replace("  wanted ", "  the layer gives "))
            wrong += count
    print(f"the fault is there: {wrong:,} elements" if wrong else "the graph is what the layer is, but for rounding")
    return 1 if wrong else 0
