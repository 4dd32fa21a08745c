"""What a file of torch's would run when it is loaded, told from its bytes alone: nothing is unpickled here, and no code of the file runs."""

from __future__ import annotations

import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_TEXT = 256 * 2**20  # bytes of a description or a pickle that is looked through
# torch reads sizes with sympy, which evaluates the text as Python.
_SIZE = re.compile(r"[\w +\-*/(),.<>=!&|]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[a-z]+\d+")
_WRITTEN_SYMBOL = re.compile(r"Symbol\('[a-z]+\d+'(, [a-z_]+=(True|False))*\)")
_FUNCTIONS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "CeilDiv",
        "CeilToInt",
        "CleanDiv",
        "Eq",
        "FloatPow",
        "FloatTrueDiv",
        "FloorDiv",
        "FloorToInt",
        "Ge",
        "Gt",
        "Identity",
        "Integer",
        "IntTrueDiv",
        "Le",
        "Lt",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "ModularIndexing",
        "Ne",
        "Not",
        "Or",
        "Piecewise",
        "Pow",
        "PowByNatural",
        "PythonMod",
        "Rational",
        "RoundToInt",
        "ToFloat",
        "TruncToInt",
        "Where",
        "True",
        "False",
        "ceiling",
        "floor",
        "int_oo",
        "oo",
    ]
)
_SIZES = ("expr_str", "hint_expr_str")
# torch writes Python with these names in it, and runs that.
_NAMES = (
    "name",
    "parameter_name",
    "buffer_name",
    "tensor_constant_name",
    "custom_obj_name",
    "fqn",
    "forward_arg_names",
)
_PLAIN_NAME = re.compile(r"[\w.\-]*")
_STRUCTURES = ("in_spec", "out_spec")
_IMPORTING = ("default_factory_module", "__enum__")
_OPERATOR = re.compile(
    r"torch\.ops\.(?!load|_)\w+\.\w+(\.\w+)?|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|le|lt|ge|gt|eq|ne|and_|or_|not_)"
    r"|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
)
_SAFE_GLOBALS = re.compile(
    r"collections OrderedDict|torch(\.storage)? (_utils\._rebuild\w*|\w*Storage|Size|device|\w+)|torch\._utils _rebuild\w+|torch\._tensor _rebuild\w+"
)


def code_of_program(path: Path) -> str:
    """Return what a .pt2 file would run that is no operator of torch, in words; "" where there is nothing of the kind."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            inner = entry.filename.partition("/")[2] or entry.filename
            if "custom_obj" in inner or "opaque_obj" in inner or inner.endswith((".so", ".cubin")):
                return f"it holds {one_line(inner, 80)}"
            if not inner.endswith(".json"):
                continue
            if entry.file_size > LARGEST_TEXT:
                return f"{one_line(inner, 80)} is of {entry.file_size:,} bytes"
            for code in _code_in(msgspec.json.decode(archive.read(entry))):
                return f"{one_line(inner, 80)} asks for {code}"
    return ""


def code_of_pickle(data: bytes) -> str:
    """Return the first function that a pickle calls and that is none of torch's for tensors, "os.system"; "" where there is none."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            name = str(argument)
        elif opcode.name == "STACK_GLOBAL":
            name = " ".join(strings[-2:])
        elif opcode.name in ("REDUCE", "BUILD"):
            continue
        else:
            if isinstance(argument, str):
                strings.append(argument)
            continue
        if not _SAFE_GLOBALS.fullmatch(name):
            return name.replace(" ", ".")
    return ""


def _code_in(value: Any) -> Iterator[str]:
    """Yield what a description of a program names that is neither an operator nor a size."""
    if isinstance(value, dict):
        for key, part in value.items():
            if (key == "target" and isinstance(part, str) and not _OPERATOR.fullmatch(part)) or (
                key in _SIZES and isinstance(part, str) and not _is_size(part)
            ):
                yield one_line(repr(part), 120)
            elif key in _NAMES and not all(_PLAIN_NAME.fullmatch(name) for name in _strings(part)):
                yield f"the name {one_line(repr(part), 120)}"
            elif key in _STRUCTURES and any(word in str(part) for word in _IMPORTING):
                yield f"a class of its own in {key}"
            else:
                yield from _code_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from _code_in(part)


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [part for part in values if isinstance(part, str)]


def _is_size(text: str) -> bool:
    text = _WRITTEN_SYMBOL.sub("", text)
    return _SIZE.fullmatch(text) is not None and all(
        _SYMBOL.fullmatch(name) or name in _FUNCTIONS for name in _NAME.findall(text)
    )
