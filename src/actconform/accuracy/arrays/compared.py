"""What `actconform.compare` returns: tensor by tensor whether it conforms, its worst element, and what kinds of differences there are."""

from __future__ import annotations

import math

import msgspec

from actconform.text import number_of, one_line

Numbers = tuple[int, ...]
TENSORS_SHOWN = 8
SPECIAL = ("nan-made", "nan-lost", "inf")
MEANS = {
    "nan-made": "NaN where a number is expected",
    "nan-lost": "a number where NaN is expected",
    "inf": "infinite where the other is not, or of the other sign",
    "scaled-error": "beyond the limit",
    "tail": "more than 8 ULP off where the kernel is small",
    "kink": "no slope of either side of a kink",
    "range": "outside of the kernel's range",
    "zero-sign": "zero of the other sign",
    "subnormal-flush": "zero, or what zero gives, where numbers are below normal",
}


class DifferenceKind(msgspec.Struct, frozen=True):
    """Elements that differ in one way."""

    kind: str
    """A class of findings: "nan-made", "nan-lost", "inf", "scaled-error", "tail" ..."""
    count: int
    place: Numbers
    """Of the first of them; with a kernel, of the worst."""
    accepted: bool = False
    """Whether a convention of the kernel allows it."""


class ComparedArray(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor against what is expected; true where it conforms."""

    name: str
    """"" for arrays without one."""
    conforms: bool
    problem: str = ""
    """What is wrong before any number is read: a shape, a dtype, a tensor that is missing; then nothing else is filled in."""
    dtype: str = ""
    """The format in which it is judged: f32, f16, bf16, f64, or NumPy's name of another dtype."""
    shape: Numbers = ()
    elements: int = 0
    unequal: int = 0
    """Elements that are not the expected ones rounded to the format; two NaN are equal, and so are 0 and -0."""
    differences: tuple[DifferenceKind, ...] = ()
    """Which of them are beyond the limit, by kind."""
    place: Numbers = ()
    """Of the worst element: NaN and infinities before numbers, and of these the one with the largest scaled error."""
    got: float = 0.0
    wanted: float = 0.0
    ulp: float = 0.0
    """The largest error of a finite element in ULP of what is expected."""
    scaled: float = 0.0
    """The largest error of a finite element in `unit`."""
    limit: float = 0.0
    """The largest `scaled` that conforms."""
    unit: str = ""
    """What `scaled` counts, in words."""

    def __bool__(self) -> bool:
        return self.conforms

    def __str__(self) -> str:
        """Say whether it conforms, by how much it is off, and where."""
        name = one_line(self.name, 80) or "the array"
        if self.problem:
            return f"{name}: {self.problem}"
        if not self.unequal:
            return f"{name}: equal, {number_of(self.elements, 'element')} of {self.dtype}"
        verdict = "conforms" if self.conforms else "does NOT conform"
        words = [f"{name}: {verdict}: {self.unequal:,} of {number_of(self.elements, 'element')} differ"]
        at = f" at {list(self.place)}" if self.place else ""
        words.append(f"worst{at}: {_number(self.got)} where {_number(self.wanted)} is expected")
        if math.isfinite(self.got) and math.isfinite(self.wanted) and self.unit:
            words.append(
                f"largest errors: {self.ulp:.3g} ULP of {self.dtype}, {self.scaled:.3g} {self.unit} (limit {self.limit:g})"
            )
        kinds = [
            f"{difference.count:,} {difference.kind}"
            + (f", {MEANS[difference.kind]}" if difference.kind in MEANS else "")
            + (f", as at {list(difference.place)}" if difference.place else "")
            + (" (a convention allows it)" if difference.accepted else "")
            for difference in self.differences
        ]
        return "; ".join(words) + "".join(f"\n  {kind}" for kind in kinds)


class ComparedArrays(msgspec.Struct, frozen=True, kw_only=True):
    """Tensors against what is expected; true where all conform."""

    tensors: tuple[ComparedArray, ...]

    def __bool__(self) -> bool:
        return all(tensor.conforms for tensor in self.tensors)

    @property
    def worst(self) -> ComparedArray:
        """The tensor that is furthest off: one with a problem, with NaN or infinities, then by its error over its limit."""
        return max(self.tensors, key=_gravity)

    def __str__(self) -> str:
        """Say of each tensor whether it conforms, those that do not first."""
        ordered = sorted(self.tensors, key=_gravity, reverse=True)
        lines = [str(tensor) for tensor in ordered[:TENSORS_SHOWN]]
        rest = ordered[TENSORS_SHOWN:]
        if rest:
            wrong = sum(not tensor.conforms for tensor in rest)
            lines.append(f"and {len(rest):,} more, {f'{wrong:,} of them do NOT conform' if wrong else 'which conform'}")
        return "\n".join(lines)


def _gravity(tensor: ComparedArray) -> tuple[bool, bool, bool, float]:
    special = any(difference.kind in SPECIAL for difference in tensor.differences if not difference.accepted)
    ratio = tensor.scaled / tensor.limit if tensor.limit else tensor.scaled
    return not tensor.conforms, bool(tensor.problem), special, ratio


def _number(value: float) -> str:
    return f"{value:.9g}"
