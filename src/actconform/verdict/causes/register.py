"""The register of known causes: TOML tables of libraries and causes, read and checked. Nothing is excused that is not in it."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from actconform.files import read_text
from actconform.types import Aspect  # noqa: TC001  msgspec reads annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.types import Case, Finding
    from actconform.types.dtypes import FloatFormat
    from actconform.verdict.causes.arithmetic import Arithmetic, Flush
    from actconform.verdict.causes.formula import Formula

REGISTER = "causes.toml"  # in a plugin's package

When = dict[str, str | tuple[str, ...]]
Texts = dict[str, str | tuple[str, ...]]


class RegisterError(Exception):
    """A register that cannot be read: says where, what was wrong and what is expected."""


class Library(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What computes, and how accurately: the primitives of a framework or runtime, as `make accuracy` measures them."""

    name: str
    when: When = {}
    """Facts under which it holds: a version specifier (">=2.13,<3") or a list of allowed values each."""
    ulp: dict[str, float] = {}
    """Primitive, or "primitive/f16", to its largest error in ULP of the result; in 16 bits 1 where not stated."""
    absolute: dict[str, float] = {}
    """The same in units u, added: for primitives that lose relative accuracy."""
    flush: Literal["", "kept", "may", "always"] = ""
    """What becomes of subnormal numbers; "" goes by the fact `subnormals`."""
    division: int = 1
    """Roundings of a division: 2 where it is a product with the reciprocal."""
    steps: dict[str, Literal["each", "wide", "double"]] = {}
    """By dtype: "each" operation rounds to the dtype, or in float32 ("wide") or float64 ("double"), and to the dtype at r() and at the end."""
    operators: dict[str, str] = {}
    """Of a runtime: operator to the formula by which it computes, where that is another than the usual one."""

    def arithmetic(self, fmt: FloatFormat, facts: Mapping[str, str]) -> Arithmetic:
        """Return the arithmetic of the library in a format, under the facts of the machine."""
        from actconform.verdict.causes.arithmetic import Arithmetic  # a worker needs the register's types alone

        names = self.ulp.keys() | self.absolute.keys()
        accuracy = {
            name: (self.ulp.get(name, 0.0 if name in self.absolute else 1.0), self.absolute.get(name, 0.0))
            for name in names
        }
        by_fact: Flush = "always" if facts.get("subnormals") == "flushed" else "kept"
        return Arithmetic(fmt, self.flush or by_fact, self.division, accuracy)


class Cover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """What a cause without a formula covers: findings of a class in an aspect, of kernels or models by glob."""

    class_: str
    aspect: Aspect = "value"
    kernels: tuple[str, ...]
    dtypes: tuple[str, ...] = ("*",)
    tensors: tuple[str, ...] = ("*",)
    regimes: tuple[str, ...] = ("*",)
    bound: float = float("inf")
    """The largest magnitude that it covers."""

    def matches(self, case: Case, finding: Finding) -> bool:
        """Tell whether the finding of this case is of the class, tensor and regime, and within the bound."""
        return (
            self.class_ == finding.class_
            and self.concerns(case)
            and _any(finding.tensor, self.tensors)
            and _any(finding.regime, self.regimes)
            and finding.magnitude <= self.bound
        )

    def concerns(self, case: Case) -> bool:
        """Tell whether the case is of the aspect, the kernels and the dtypes."""
        return self.aspect == case.aspect and _any(case.subject, self.kernels) and _any(case.dtype, self.dtypes)


class Cause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why findings are there: a formula by which the implementation computes, the graph, another kernel, or a plain entry."""

    id: str
    reason: str
    """One sentence for the owner of what computes."""
    link: str
    """Where it is reported, or "unreported"."""
    since: str
    """The version of actconform that registered it."""
    routes: tuple[str, ...]
    when: When = {}
    library: str = ""
    """What computes its formulas; on routes through a graph the runtime's, where it is not named."""
    value: Texts = {}
    """Kernel to the formula of its value, or several, any of which may hold for an element; a glob is a kernel's name too."""
    gradient: Texts = {}
    """Likewise of d_x; "KERNEL/TENSOR" where the kernel has other gradients."""
    graph: bool = False
    """The graph is the formula, where computed exactly it is the definition."""
    same_as: dict[str, str] = {}
    """Kernel to the kernel that is really computed, by which it is judged."""
    covers: tuple[Cover, ...] = ()
    test: bool = True
    """Whether an element outside the formulas is a finding of class `formula`."""
    blame: str = ""

    def texts(self, case: Case, tensor: str) -> tuple[str, ...]:
        """Return the formulas for a tensor of the case; none where it has none."""
        return self.texts_of(case.aspect, case.subject, tensor)

    def texts_of(self, aspect: str, kernel: str, tensor: str) -> tuple[str, ...]:
        """Return the formulas for a tensor of a kernel: by its name and tensor, its name, or the first glob that fits."""
        table = self.value if aspect == "value" else self.gradient
        text = table.get(f"{kernel}/{tensor}") or table.get(kernel)
        if text is None:
            text = next((each for glob, each in table.items() if fnmatchcase(kernel, glob)), ())
        return (text,) if isinstance(text, str) else text

    def concerns(self, case: Case) -> bool:
        """Tell whether it is registered for the case: route and kernel."""
        if not _any(case.route, self.routes):
            return False
        table = self.value if case.aspect == "value" else self.gradient
        return (
            self.graph
            or case.subject in self.same_as
            or any(fnmatchcase(case.subject, name.partition("/")[0]) for name in table)
            or any(cover.concerns(case) for cover in self.covers)
        )


class Register(msgspec.Struct, frozen=True):
    """Libraries by name and causes, of one file or of all plugins."""

    libraries: tuple[Library, ...] = ()
    causes: tuple[Cause, ...] = ()

    def library(self, name: str, facts: Mapping[str, str]) -> Library | None:
        """Return the library of that name that holds under the facts; None where none does."""
        return next((item for item in self.libraries if item.name == name and holds(item.when, facts)), None)

    def active(self, case: Case, facts: Mapping[str, str]) -> list[Cause]:
        """Return the causes registered for the case that hold under the facts."""
        return [cause for cause in self.causes if cause.concerns(case) and holds(cause.when, facts)]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    library: tuple[Library, ...] = ()
    cause: tuple[Cause, ...] = ()


def register_of(package: str) -> Register:
    """Return the register in a package's causes.toml. Raises RegisterError where it cannot be read."""
    place = files(package) / REGISTER
    text = read_text(place) if isinstance(place, Path) else place.read_text(encoding="utf-8")  # inside of a zip file
    return read_register(text, f"{package}/{REGISTER}")


def joined(registers: Iterable[Register]) -> Register:
    """Return all of them as one."""
    parts = list(registers)
    return Register(
        tuple(library for register in parts for library in register.libraries),
        tuple(cause for register in parts for cause in register.causes),
    )


def read_register(text: str, where: str) -> Register:
    """Return the register of a TOML text of `[[library]]` and `[[cause]]` tables.

    Raises RegisterError, naming `where`, the entry and the field, on bad TOML, an unknown or missing field, a repeated id, a bad
    version range, a formula that does not parse, a cause that covers nothing or has formulas and no library.
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
    from actconform.verdict.causes.graph import OPERATORS

    seen: set[str] = set()
    for cause in file.cause:
        if cause.id in seen:
            raise RegisterError(f"{where}: two causes have the id {cause.id!r}; ids are unique")
        seen.add(cause.id)
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
    if not (cause.value or cause.gradient or cause.graph or cause.same_as or cause.covers):
        raise RegisterError(f"{where}: it covers nothing: expected value, gradient, graph, same_as or covers")
    native = [route for route in cause.routes if "+" not in route]
    if (cause.graph or ((cause.value or cause.gradient) and native)) and not cause.library:
        raise RegisterError(f"{where}: a formula needs the library whose primitives it uses")
    for aspect, table in (("value", cause.value), ("gradient", cause.gradient)):
        for kernel, texts in table.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                _formula(text, f"{where}: {aspect}.{kernel}")


def _formula(text: str, where: str) -> Formula:
    from actconform.verdict.causes.formula import Formula, FormulaError

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


def holds(when: When, facts: Mapping[str, str]) -> bool:
    """Tell whether every fact named is one that is allowed; a fact that is not known is not."""
    for fact, wanted in when.items():
        value = facts.get(fact)
        if value is None:
            return False
        if isinstance(wanted, str):
            if not _version_in(value, wanted):
                return False
        elif value not in wanted:
            return False
    return True


def _version_in(value: str, wanted: str) -> bool:
    try:
        return Version(value.partition("+")[0]) in SpecifierSet(wanted, prereleases=True)
    except InvalidVersion:
        return False


def _any(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
