"""Foreign words in cells of tables that other programs read: spreadsheets and LaTeX."""

from __future__ import annotations

from actconform.text import one_line

FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would take a text for that begins so
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    letter: f"\\{letter}" for letter in "&%$#_{}"
}


def csv_cell(words: str) -> str:
    """Return words on one line, which no spreadsheet takes for a formula."""
    line = one_line(words)
    return f"'{line}" if line.startswith(FORMULA) else line


def latex_cell(words: str) -> str:
    """Return words on one line, in which LaTeX finds no command."""
    return "".join(LATEX.get(letter, letter) for letter in one_line(words))


def latex_number(value: float) -> str:
    """Return a number to three digits in mathematics, without its dollars: 0.513, and with a power of ten where it is long or tiny."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if mantissa.endswith(("inf", "nan")):
        return mantissa.replace("inf", r"\infty").replace("nan", r"\mathrm{NaN}")
    return rf"{mantissa}\cdot 10^{{{int(exponent)}}}" if exponent else mantissa
