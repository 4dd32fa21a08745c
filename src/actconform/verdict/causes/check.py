"""Whether formulas fit the kernels that they are stated for: names that exist, and a value at ordinary inputs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import FormulaError, RegisterError, near
from actconform.testdata.regimes import HALVED
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import Arithmetic, Number
from actconform.verdict.causes.evaluation import parse_formula
from actconform.verdict.causes.formula import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.types import Aspect, Kernel
    from actconform.types.cause import Cause, Register

ORDINARY = np.array([-2.5, -1.0, -0.25, 0.25, 1.0, 2.5])  # an even number, so that rows have halves


def check_formulas(register: Register, kernels: Mapping[str, Kernel]) -> None:
    """Raise RegisterError, naming cause, kernel and text, at the first formula that fits no kernel.

    A formula must be of a kernel that exists, read nothing but the kernel's inputs and parameters (and g in a gradient), and be finite
    at some ordinary input.
    """
    for cause in register.causes:
        tables: dict[Aspect, dict[str, str | tuple[str, ...]]] = {"value": cause.value, "gradient": cause.gradient}
        for aspect, table in tables.items():
            for name, texts in table.items():
                _check(cause, aspect, name, (texts,) if isinstance(texts, str) else texts, kernels)
        for name in (*cause.same_as, *cause.same_as.values()):
            if name not in kernels:
                raise RegisterError(
                    f"cause {cause.id!r}: same_as: no kernel is called {name!r}{near(name, list(kernels))}"
                )


def _check(cause: Cause, aspect: Aspect, name: str, texts: tuple[str, ...], kernels: Mapping[str, Kernel]) -> None:
    glob = name.partition("/")[0]
    matching = [kernel for kernel in kernels.values() if fnmatchcase(kernel.name, glob)]
    where = f"cause {cause.id!r}: {aspect}.{name}"
    if not matching:
        raise RegisterError(f"{where}: no kernel is called {glob!r}{near(glob, list(kernels))}")
    for kernel in matching:
        for text in texts:
            number = _at_ordinary(text, kernel, aspect, where)
            if not (np.isfinite(number.value) & np.isfinite(number.error)).any():
                raise RegisterError(f"{where}: {text!r} is not finite anywhere in [{ORDINARY[0]}, {ORDINARY[-1]}]")


def _at_ordinary(text: str, kernel: Kernel, aspect: Aspect, where: str) -> Number:
    arithmetic = Arithmetic(DTYPES["f32"])
    arrays = dict.fromkeys(kernel.inputs, ORDINARY)
    arrays |= {name: np.asarray(value) for name, value in kernel.parameters.items()}
    half = ORDINARY.size // 2
    if kernel.name in HALVED:
        arrays |= {"a": ORDINARY[:half], "b": ORDINARY[half:]}
    if aspect == "gradient":
        narrow = kernel.name in HALVED or kernel.form == "row"
        arrays["g"] = np.ones(half if narrow and kernel.name in HALVED else ORDINARY.size)
    names = {name: Number(np.asarray(array), np.zeros(np.shape(array)), arithmetic) for name, array in arrays.items()}
    if unknown := sorted(parse_formula(text).names - names.keys()):
        raise RegisterError(f"{where}: {text!r} reads {unknown[0]!r}{near(unknown[0], sorted(names))}")
    try:
        with np.errstate(all="ignore"):
            return parse_formula(text).evaluate(Scope(names, arithmetic, arithmetic, -1))
    except (FormulaError, ValueError) as error:
        raise RegisterError(f"{where}: {text!r}: {error}") from error
