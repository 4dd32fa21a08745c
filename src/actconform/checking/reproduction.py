"""The folder that shows a finding to others: the model, its inputs, what is right, and a program that needs one runtime alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import helper

from actconform.checking import standalone
from actconform.checking.copied_text import Copied, module_text
from actconform.checking.flatten import wide
from actconform.checking.proof import exact_product, in_double
from actconform.errors import UsageError
from actconform.files import read_bytes
from actconform.onnx.constants import tensor_of
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.text import one_line
from actconform.types.json import finite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from actconform.checking.flatten import Array
    from actconform.checking.part import Accepted
    from actconform.types.case import Bundle

FINDING = "finding.json"
MODEL = "model.onnx"
PROGRAM = "repro.py"
EXPECTED = "expected.npz"
PROOFS = {in_double: "onnx's reference evaluator in float64", exact_product: "the sum of products in rational numbers"}
MOST_PRODUCTS = 200_000  # that are summed in rational numbers
MOST_BYTES = 2**31 - 1
HEAD = '''"""{title}

Shows it with {package} alone: `python repro.py` ends with 1 while it is there, with 0 once it is mended.
"""

from __future__ import annotations

{imports}

PACKAGES = {packages!r}
LEVEL = {level!r}
{body}


if __name__ == "__main__":
    print(versions(PACKAGES))
    sys.exit(reproduce(Path(__file__).resolve().parent, run, LEVEL, {{{proofs}}}))
'''
OWN_IMPORTS = ("import sys", "from pathlib import Path")


class WorstElement(msgspec.Struct, frozen=True, kw_only=True):
    """The worst element of one output."""

    output: str
    place: tuple[int, ...]
    dtype: str
    got: float
    got_hex: str
    wanted: float
    """Unrounded."""
    wanted_hex: str
    error: float
    ulp: float
    """The error in units in the last place of what is wanted, 0 for other types than floats."""
    allowed: float
    count: int
    """How many elements of the output are wrong."""
    size: int = 0
    """0 where it is not known."""
    proofs: dict[str, float] = {}
    """What others compute there, by what they are called."""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in a folder of its texts: all that its program and its text are made of, beside the model and its data."""

    title: str
    runtime: str
    source: str = ""
    """Python source of `run(model, inputs, level)`; "" where the runtime gives none: see `Backend.reproduction`."""
    meaning: str = ""
    """What was seen, where no element shows it."""
    exporting: str = ""
    """Source of a program that exports the graph, where an exporter is at fault."""
    program: str = ""
    """The whole program, where it is not made of `source`."""
    packages: tuple[str, ...] = ()
    graph: tuple[str, ...] = ()
    """Lines of the graph in words, where it is none of the folder's files."""
    level: str = ""
    criterion: str = "bound"
    """What rounding explains: up to the error bound "bound", the "spread" end to end, or the "limit" of the kernel.

    "layer": beside a layer of the trained model that is exported alone; "trained": beside what the trained model has at these nodes.
    """
    reproduced: bool = True
    facts: dict[str, str] = {}
    blame: str = ""
    subject: str = ""
    """The user's model or the case, in words."""
    node: str = ""
    source_line: str = ""
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    worst: tuple[WorstElement, ...] = ()
    shapes: tuple[str, ...] = ()
    """In words, of outputs of another shape than wanted."""
    proofs: tuple[str, ...] = ()
    """The names of those functions of PROOFS that agree with the truth."""
    disagreeing: tuple[str, ...] = ()
    """In words, of those that do not."""


def write_model(
    folder: Path,
    model: onnx.ModelProto,
    inputs: Bundle,
    accepted: Mapping[str, Accepted],
    zero_signs: frozenset[str] = frozenset(),
) -> None:
    """Write a model, its inputs and what is right as ONNX lays out test data: input_K.pb, output_K.pb rounded to the output's type.

    Shapes are declared as they are for these inputs. Raises OSError.
    """
    data = folder / standalone.DATA
    data.mkdir(parents=True, exist_ok=True)
    model = _declared(model, accepted)
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    for k, name in enumerate(inputs):
        (data / f"input_{k}.pb").write_bytes(tensor_of(np.asarray(inputs[name]), name).SerializeToString())
    expected: dict[str, Any] = {}
    for k, value in enumerate(model.graph.output):
        if value.name not in accepted:
            continue
        right = accepted[value.name]
        with np.errstate(over="ignore"):
            rounded = np.asarray(right.truth).astype(STORAGE[value.type.tensor_type.elem_type])
        (data / f"output_{k}.pb").write_bytes(tensor_of(rounded, value.name).SerializeToString())
        expected |= {f"truth_{k}": right.truth, f"lowest_{k}": right.lowest, f"highest_{k}": right.highest}
        if value.name in zero_signs:
            expected[f"zero_signs_{k}"] = np.array(True)  # noqa: FBT003
    np.savez(folder / EXPECTED, **expected)


def _declared(model: onnx.ModelProto, accepted: Mapping[str, Accepted]) -> onnx.ModelProto:
    declared = onnx.ModelProto()
    declared.CopyFrom(model)
    for value in declared.graph.output:
        if value.name in accepted and not value.type.tensor_type.HasField("shape"):
            shape = accepted[value.name].truth.shape
            value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    return declared


def worst_elements(
    got: Mapping[str, Array], accepted: Mapping[str, Accepted], proved: Mapping[str, Mapping[str, Array]]
) -> list[WorstElement]:
    """Return the worst element of each output that has the right shape and is wrong somewhere; `proved` by what computes it."""
    elements = []
    for name, right in accepted.items():
        array = got[name]
        if array.shape != right.truth.shape or not (rejected := right.rejects(array)).any():
            continue
        value, truth = wide(array).astype(np.float64), right.truth.astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(value - truth)
            allowed = np.where(value < truth, truth - right.lowest, right.highest - truth)
            ratio = np.nan_to_num(error / allowed, nan=np.inf)
        flat = int(np.argmax(np.where(rejected, ratio, -1.0)))
        place = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        with np.errstate(over="ignore"):
            wanted = right.truth[place].astype(array.dtype)
        elements.append(
            WorstElement(
                output=name,
                place=place,
                dtype=array.dtype.name,
                got=float(value[place]),
                got_hex=_hex(array[place]),
                wanted=float(truth[place]),
                wanted_hex=_hex(wanted),
                error=float(error[place]),
                ulp=_ulp(array.dtype.name, float(error[place]), float(truth[place])),
                allowed=float(allowed[place]),
                count=int(rejected.sum()),
                size=array.size,
                proofs={title: float(outputs[name][place]) for title, outputs in proved.items() if name in outputs},
            )
        )
    return elements


def _hex(number: Any) -> str:
    return f"0x{np.asarray(number).tobytes()[::-1].hex()}"


def _ulp(dtype: str, error: float, truth: float) -> float:
    if dtype not in standalone.FORMATS or not np.isfinite(truth):
        return 0.0
    precision, emin = standalone.FORMATS[dtype]
    return float(error / 2.0 ** (max(int(np.frexp(truth)[1]) - 1, emin) - precision + 1))


def second_opinions(
    model: onnx.ModelProto, inputs: Bundle, accepted: Mapping[str, Accepted]
) -> tuple[dict[str, dict[str, Array]], dict[str, str]]:
    """Return by name of a function of PROOFS its outputs where they agree with the truth, and in words why others do not.

    One that cannot compute the model has no opinion.
    """
    agreeing: dict[str, dict[str, Array]] = {}
    disagreeing: dict[str, str] = {}
    for proof, title in PROOFS.items():
        if proof is exact_product and not _is_small_product(model, inputs):
            continue
        try:
            outputs = {name: np.asarray(array) for name, array in proof(model, dict(inputs)).items()}
            ratios = [right.ratio(outputs[name]) for name, right in accepted.items()]
        except Exception:  # noqa: BLE001, S112  an operator that it does not have, in whatever words
            continue
        if all(ratio <= 1 for ratio in ratios):
            agreeing[proof.__name__] = outputs
        else:
            disagreeing[proof.__name__] = f"{title} gives something else"
    return agreeing, disagreeing


def _is_small_product(model: onnx.ModelProto, inputs: Bundle) -> bool:
    nodes = model.graph.node
    if len(nodes) != 1 or nodes[0].domain not in ("", "ai.onnx") or nodes[0].op_type not in ("MatMul", "Gemm"):
        return False
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes = [inputs[name].shape if name in inputs else constants[name] for name in nodes[0].input[:2]]
    return int(np.prod(shapes[0])) * max(shapes[1][-1:], default=1) <= MOST_PRODUCTS if all(shapes) else False


def program(reproduction: Reproduction) -> str:
    """Return the program that shows a finding from its folder, without actconform."""
    proofs = [proof for proof in PROOFS if proof.__name__ in reproduction.proofs]
    packages = tuple(dict.fromkeys((*reproduction.packages, "onnx", "numpy")))
    texts = Copied()
    for module in dict.fromkeys((*(proof.__module__ for proof in proofs), standalone.__name__)):
        texts.add(module_text(module), module)
    of_runtime = Copied()
    of_runtime.add(reproduction.source)
    texts.imports |= of_runtime.imports | set(OWN_IMPORTS)
    used = {"reproduce", "versions", *(proof.__name__ for proof in proofs)}
    body = f"{of_runtime.text(set(), texts.names())}\n\n\n{texts.text(used, set())}"
    return HEAD.format(
        title=_plain(reproduction.title),
        package=packages[0] if reproduction.packages else _plain(reproduction.runtime),
        imports=texts.import_lines(body),
        packages=packages,
        level=reproduction.level,
        body=body,
        proofs=", ".join(f"{PROOFS[proof]!r}: {proof.__name__}" for proof in proofs),
    )


def _plain(text: str) -> str:
    """Return foreign text as a docstring can hold it."""
    return one_line(text).replace("\\", "/").replace('"', "'")


def write_finding(folder: Path, reproduction: Reproduction) -> None:
    """Write the finding itself, and its program where the runtime says how it is run. Raises OSError."""
    content = msgspec.json.format(msgspec.json.encode(finite(reproduction)), indent=1)
    (folder / FINDING).write_bytes(content + b"\n")
    if text := reproduction.program or (program(reproduction) if reproduction.source else ""):
        (folder / PROGRAM).write_text(text, encoding="utf-8")


def read_finding(folder: Path) -> Reproduction:
    """Return the finding that lies in a folder. Raises UsageError, naming the file, where there is none, or something else."""
    path = folder / FINDING
    shown = one_line(str(path))
    try:
        return msgspec.json.decode(read_bytes(path, MOST_BYTES), type=Reproduction, strict=False)
    except OSError as error:
        raise UsageError(
            f"{shown}: cannot be read: {error.strerror}; it is written by `actconform check MODEL --minimize`"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{shown}: is no finding of a check ({one_line(str(error))}); make it anew with --minimize"
        ) from error
