"""A short program that shows a case's worst finding again with the framework alone, where there is one.

There is none where it would not be short: rows, models and compositions need their tensors, exported graphs their exporter.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import TYPE_CHECKING

from actconform.catalog.kernels import UNARY
from actconform.report.terminal.screen import DIGITS
from actconform.testdata.regimes import signed_powers
from actconform.types.dtypes import DTYPES, from_hex
from actconform.verdict.severity import gravest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from actconform.types import Finding, Result

COPIES = 67  # so that vectorized loops have a body and a tail
KERNELS = {kernel.name: kernel for kernel in UNARY if len(kernel.inputs) == 1}
# A dotted name, with literals as arguments: what can be called as it is written.
PLAIN = re.compile(r"(?P<path>\w+(?:\.\w+)+)(?:\((?P<arguments>(?:\w+=(?:[-+.\w]+|'\w*')(?:, )?)*)\))?")
DTYPE_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}

TORCH = """import torch

x = torch.frombuffer(bytearray.fromhex("{hex}")[::-1] * {copies}, dtype=torch.{dtype}){leaf}  # {x}
y = {call}{gradient}
got = {answer}.tolist()
print("got  ", *dict.fromkeys(map(str, got)))
"""
TORCH_GRADIENT = "\ny.backward(torch.full_like(y, {cotangent}))"
KERAS = """import numpy
import tensorflow
import keras

patterns = numpy.full({copies}, 0x{hex}, numpy.uint{bits})
x = tensorflow.bitcast(patterns, "{dtype}")  # {x}
{run}
got = {answer}.numpy().tolist()
print("got  ", *dict.fromkeys(map(str, got)))
"""
KERAS_VALUE = "y = {call}"
KERAS_GRADIENT = """with tensorflow.GradientTape() as tape:
    tape.watch(x)
    y = {call}
d_x = tape.gradient(y, x, tensorflow.fill(y.shape, tensorflow.cast({cotangent}, y.dtype)))"""
JAX = """import jax
import numpy

x = jax.numpy.asarray(numpy.full({copies}, 0x{hex}, numpy.uint{bits}).view(jax.numpy.{dtype}))  # {x}
{run}
got = numpy.asarray({answer}).tolist()
print("got  ", *dict.fromkeys(map(str, got)))
"""
JAX_VALUE = "y = jax.jit(lambda x: {call})(x)"
JAX_GRADIENT = """gradient = jax.jit(lambda x, g: jax.vjp(lambda x: {call}, x)[1](g))
(d_x,) = gradient(x, jax.numpy.full_like(x, {cotangent}))"""
RUNTIME = """import base64
import numpy
import onnxruntime

# {path}
graph = base64.b64decode(
{graph}
)
x = numpy.full({copies}, 0x{hex}, numpy.uint{bits}).view(numpy.{dtype})  # {x}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
(y,) = session.run(None, {{"x": x}})
print("got  ", *dict.fromkeys(map(str, y.tolist())))
"""


def reproduction(result: Result) -> str:
    """Return Python that prints what was got and the truth at the worst input of the gravest finding, or "" ."""
    finding = _shown(result)
    if finding is None or finding.worst is None:
        return ""
    cotangent = cotangent_of(finding, result)
    if result.route == "authored+ort-cpu" and result.aspect == "value" and result.dtype != "bf16":
        code = _of_graph(result, finding)
    elif result.route in ("torch", "keras", "jax") and cotangent:
        code = _native(result, finding, cotangent)
    else:
        return ""
    if not code:
        return ""
    digits = DIGITS[result.dtype]
    head = f"# {result.case}: {finding.class_}; got {finding.worst.got:.{digits}g}, truth {finding.worst.truth:.{digits}g}\n"
    return head + code + f'print("truth", "{finding.worst.truth!r}")\n'


def cotangent_of(finding: Finding, result: Result) -> float:
    """Return what the answer's element was multiplied by on the way back: 1 for values, 0 where it is not known.

    A regime of a unary kernel is asked with ones first, then with signed powers of two; `special` with ones alone; those of
    `cotangent` and `memory` are not known here.
    """
    if result.aspect != "gradient":
        return 1.0
    n = next((m.n for m in result.measurements if (m.tensor, m.regime) == (finding.tensor, finding.regime)), 0)
    if finding.worst is None or result.subject not in KERNELS or not finding.worst.index < n:
        return 0.0
    if finding.regime in ("cotangent", "memory"):
        return 0.0
    if finding.regime == "special" or finding.worst.index < n // 2:
        return 1.0
    return float(_powers(result.subject, finding.regime, n // 2)[finding.worst.index - n // 2])


@cache
def _powers(subject: str, regime: str, n: int) -> NDArray[np.float32]:
    return signed_powers(f"{subject}/powers/{regime}", n)


def _shown(result: Result) -> Finding | None:
    """Return the finding to show again: the gravest that a single input shows."""
    if result.subject not in KERNELS or result.dtype not in DTYPES:
        return None
    return gravest(finding for finding in result.findings if finding.worst is not None)


def _fields(result: Result, finding: Finding) -> dict[str, str | int]:
    assert finding.worst is not None
    fmt = DTYPES[result.dtype]
    return {
        "hex": finding.worst.input_hex.removeprefix("0x"),
        "bits": fmt.bits,
        "copies": COPIES,
        "dtype": DTYPE_NAMES[result.dtype],
        "x": f"{from_hex(finding.worst.input_hex, fmt):.{DIGITS[result.dtype]}g}",
    }


def call_of(implementation: str, framework: str, dtype: str) -> str:
    """Return the call of a function or layer of a framework with the tensor `x`, or "" where it is not written as one."""
    match = PLAIN.fullmatch(implementation)
    if match is None or not match["path"].startswith(f"{framework}."):
        return ""
    return _call(match["path"], match["arguments"] or "", DTYPE_NAMES[dtype])


def function_of(implementation: str, framework: str, dtype: str) -> str:
    """Return a function or layer of a framework with its arguments bound, as an expression; "" where it is not written as one."""
    match = PLAIN.fullmatch(implementation)
    call = call_of(implementation, framework, dtype)
    if match is None or not call:
        return ""
    if call.endswith(")(x)"):  # a layer
        return call.removesuffix("(x)")
    return f"functools.partial({match['path']}, {match['arguments']})" if match["arguments"] else match["path"]


def _native(result: Result, finding: Finding, cotangent: float) -> str:
    call = call_of(result.implementation, result.route, result.dtype)
    if not call:
        return ""
    fields = _fields(result, finding)
    gradient = result.aspect == "gradient"
    if result.route == "torch":
        return TORCH.format(
            **fields,
            call=call,
            leaf=".requires_grad_()" if gradient else "",
            gradient=TORCH_GRADIENT.format(cotangent=cotangent) if gradient else "",
            answer="x.grad" if gradient else "y",
        )
    program, value, derivative = (
        (JAX, JAX_VALUE, JAX_GRADIENT) if result.route == "jax" else (KERAS, KERAS_VALUE, KERAS_GRADIENT)
    )
    run = (derivative if gradient else value).format(call=call, cotangent=cotangent)
    return program.format(**fields, run=run, answer="d_x" if gradient else "y")


def _call(path: str, arguments: str, dtype: str) -> str:
    if not path.rpartition(".")[2][0].isupper():
        return f"{path}(x, {arguments})" if arguments else f"{path}(x)"
    if path.startswith("keras."):
        arguments = ", ".join(filter(None, (arguments, f'dtype="{dtype}"')))
    return f"{path}({arguments})(x)"


def _of_graph(result: Result, finding: Finding) -> str:
    from actconform.onnx.author.exporter import author

    written = author(KERNELS[result.subject], result.dtype)
    text = base64.b64encode(written.model).decode()
    lines = "\n".join(f'    "{text[start : start + 88]}"' for start in range(0, len(text), 88))
    return RUNTIME.format(**_fields(result, finding), path=written.path, graph=lines)
