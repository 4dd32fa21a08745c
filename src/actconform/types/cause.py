"""Known causes of findings, as data: libraries and how accurate they are, formulas, plain entries."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from actconform.types.finding import FindingClass  # noqa: TC001  msgspec reads annotations
from actconform.types.kernel import Aspect  # noqa: TC001  as above

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.types.case import Case
    from actconform.types.finding import Finding

When: TypeAlias = dict[str, str | tuple[str, ...]]
Texts: TypeAlias = dict[str, str | tuple[str, ...]]


class LibraryAccuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What computes, and how accurately: the primitives of a framework or runtime, as `make accuracy` measures them."""

    name: str
    when: When = {}
    """Facts under which it holds: a version specifier (">=2.13,<3") or a list of allowed values each; of `cpu_features` one of its words will do."""
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


class Cover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """What a cause without a formula covers: findings of a class in an aspect, of kernels or models by glob."""

    class_: FindingClass
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
    rewrite: str = ""
    """What a runtime makes of a graph, by a name of `verdict.causes.rewrites`: the graph rewritten is the formula. Of a user's model alone."""
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

    libraries: tuple[LibraryAccuracy, ...] = ()
    causes: tuple[Cause, ...] = ()

    def library(self, name: str, facts: Mapping[str, str]) -> LibraryAccuracy | None:
        """Return the library of that name that holds under the facts; None where none does."""
        return next((item for item in self.libraries if item.name == name and holds(item.when, facts)), None)

    def active(self, case: Case, facts: Mapping[str, str]) -> list[Cause]:
        """Return the causes registered for the case that hold under the facts."""
        return [cause for cause in self.causes if cause.concerns(case) and holds(cause.when, facts)]

    def rewriting(self, route: str, facts: Mapping[str, str]) -> list[Cause]:
        """Return the causes of a route that are rewritings of the graph and hold under the facts."""
        return [
            cause for cause in self.causes if cause.rewrite and _any(route, cause.routes) and holds(cause.when, facts)
        ]


def join_registers(registers: Iterable[Register]) -> Register:
    """Return all of them as one."""
    parts = list(registers)
    return Register(
        tuple(library for register in parts for library in register.libraries),
        tuple(cause for register in parts for cause in register.causes),
    )


def holds(when: When, facts: Mapping[str, str]) -> bool:
    """Tell whether every fact named is one that is allowed, of `cpu_features` the whole or a word; a fact that is not known is not."""
    for fact, wanted in when.items():
        value = facts.get(fact)
        if value is None:
            return False
        if isinstance(wanted, str):
            if not _version_in(value, wanted):
                return False
        elif {value, *(value.split() if fact == "cpu_features" else ())}.isdisjoint(wanted):
            return False
    return True


def _version_in(value: str, wanted: str) -> bool:
    try:
        return Version(value.partition("+")[0]) in SpecifierSet(wanted, prereleases=True)
    except InvalidVersion:
        return False


def _any(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
