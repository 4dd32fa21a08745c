"""The register of known causes: TOML tables of libraries and causes, read and checked. Nothing is excused that is not in it."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from actconform.errors import FormulaError, RegisterError, UsageError, near
from actconform.files import read_text
from actconform.types.cause import Cause, LibraryAccuracy, Register, When, join_registers
from actconform.verdict.causes.formula import Formula
from actconform.verdict.causes.graph import OPERATORS
from actconform.verdict.causes.rewrites import REWRITES

if TYPE_CHECKING:
    from collections.abc import Sequence


REGISTER = "causes.toml"  # in a plugin's package


class _File(msgspec.Struct, forbid_unknown_fields=True):
    library: tuple[LibraryAccuracy, ...] = ()
    cause: tuple[Cause, ...] = ()


def register_of(package: str) -> Register:
    """Return the register in a package's causes.toml. Raises RegisterError where it cannot be read."""
    place = files(package) / REGISTER
    text = read_text(place) if isinstance(place, Path) else place.read_text(encoding="utf-8")  # inside of a zip file
    return read_register(text, f"{package}/{REGISTER}")


def with_files(register: Register, names: Sequence[str]) -> Register:
    """Return the register and the causes of the files that the settings name. Raises UsageError where one cannot be read."""
    registers = [register]
    for name in names:
        try:
            registers.append(read_register(read_text(Path(name)), name))
        except OSError as error:
            message = f"{name}: deviations file named in the settings cannot be read: {error.strerror}"
            raise UsageError(message) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}: deviations file named in the settings is not text in UTF-8: {error}") from error
        except RegisterError as error:
            raise UsageError(str(error)) from error
    return join_registers(registers)


def read_register(text: str, where: str) -> Register:
    """Return the register of a TOML text of `[[library]]` and `[[cause]]` tables.

    Raises RegisterError, naming `where`, the entry and the field, on bad TOML, an unknown or missing field, a repeated id, a bad
    version range, a formula that does not parse, a rewriting that there is none of, a cause that covers nothing or has formulas and no library.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (
        ValueError,
        RecursionError,
        msgspec.ValidationError,
    ) as error:  # a number of too many digits is a ValueError
        tables = "; a register has [[library]] and [[cause]] tables" if "unknown field" in str(error) else ""
        raise RegisterError(f"{where}: {error}{tables}") from error

    ids: set[str] = set()
    for cause in file.cause:
        if cause.id in ids:
            raise RegisterError(f"{where}: two causes have the id {cause.id!r}; ids are unique")
        ids.add(cause.id)
        _check_cause(cause, f"{where}: cause {cause.id!r}")
    for library in file.library:
        _check_when(library.when, f"{where}: library {library.name!r}")
        for operator, formula in library.operators.items():
            if operator not in OPERATORS:
                raise RegisterError(
                    f"{where}: library {library.name!r}: the operator {operator!r} has no formula to replace"
                )
            _formula(formula, f"{where}: library {library.name!r}: {operator}")
    return Register(file.library, file.cause)


def _check_cause(cause: Cause, where: str) -> None:
    _check_when(cause.when, where)
    if not cause.reason.strip() or not cause.link.strip():
        raise RegisterError(f'{where}: reason and link must say something; link may be "unreported"')
    if not (cause.value or cause.gradient or cause.graph or cause.same_as or cause.covers or cause.rewrite):
        raise RegisterError(f"{where}: it covers nothing: expected value, gradient, graph, same_as, covers or rewrite")
    if cause.rewrite and cause.rewrite not in REWRITES:
        raise RegisterError(
            f"{where}: no rewriting is called {cause.rewrite!r}{near(cause.rewrite, list(REWRITES))}; expected one of {', '.join(REWRITES)}"
        )
    native = [route for route in cause.routes if "+" not in route]
    if (cause.graph or ((cause.value or cause.gradient) and native)) and not cause.library:
        raise RegisterError(f"{where}: a formula needs the library whose primitives it uses")
    for aspect, table in (("value", cause.value), ("gradient", cause.gradient)):
        for kernel, texts in table.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                _formula(text, f"{where}: {aspect}.{kernel}")


def _formula(text: str, where: str) -> Formula:
    try:
        return Formula(text)
    except FormulaError as error:
        raise RegisterError(f"{where}: {error}") from error


def _check_when(when: When, where: str) -> None:
    for fact, wanted in when.items():
        if isinstance(wanted, str):
            try:
                SpecifierSet(wanted)
            except InvalidSpecifier as error:
                message = f'{where}: {fact} = "{wanted}" is no version range such as ">=2.13,<3"'
                raise RegisterError(message) from error
