"""Texts of modules put together to one program that stands alone, without the imports of actconform."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_REMARK = re.compile(r" +# (noqa|type: ignore).*$", re.MULTILINE)
_SOURCE = "the source itself"


class Copied:
    """Module texts without docstrings and imports; those of actconform that they import come before them."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self._texts: dict[str, str] = {}

    def add(self, text: str, module: str = _SOURCE) -> None:
        """Add a module's text, unless it is there."""
        if module in self._texts:
            return
        lines: list[str | None] = list(text.splitlines())
        for place, node in enumerate(ast.parse(text).body):
            docstring = place == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not docstring and not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actconform."):
                self.add(module_text(node.module or ""), node.module or "")
            elif not docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
                self.imports |= {ast.unparse(part) for part in _one_by_one(node)}
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [None] * (last - node.lineno + 1)
        remaining = "\n".join(line for line in lines if line is not None)
        self._texts[module] = _REMARK.sub("", remaining).strip("\n")

    def names(self) -> set[str]:
        """Return the names that the texts define."""
        tree = ast.parse("\n".join(self._texts.values()))
        return {name for node in tree.body for name in _defined(node)}

    def text(self, used: Collection[str], reserved: Collection[str]) -> str:
        """Return what `used` needs, or all of it where that is empty; names that are `reserved`, but `run`, become runtime_NAME."""
        text = "\n\n\n".join(text for text in self._texts.values() if text)
        for name in (self.names() & set(reserved)) - {"run"}:
            text = re.sub(rf"\b{re.escape(name)}\b", f"runtime_{name.lstrip('_')}", text)
        return _needed(text, set(used)) if used else text

    def import_lines(self, body: str) -> str:
        """Return the imports that `body` and the lines around it use: the standard library's first."""
        words = set(re.findall(r"\w+", body)) | {"sys", "Path"}
        needed = [
            line
            for line in self.imports
            if re.split(r" import | as ", line)[-1].removeprefix("import ").split(".")[0] in words
        ]
        groups = [sorted(line for line in needed if _is_standard(line) == standard) for standard in (True, False)]
        return "\n\n".join("\n".join(group) for group in groups if group)


def module_text(module: str) -> str:
    """Return the text of a module of actconform."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _one_by_one(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield an import with one name each."""
    if isinstance(node, ast.Import):
        yield from (ast.Import([alias]) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (ast.ImportFrom(node.module, [alias], node.level) for alias in node.names)


def _is_standard(line: str) -> bool:
    return line.split()[1].partition(".")[0] in sys.stdlib_module_names


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _needed(text: str, used: set[str]) -> str:
    """Return the text without the functions, classes and constants that `used` does not need."""
    defined = {name: node for node in ast.parse(text).body for name in _defined(node)}
    waiting, remaining = [name for name in used if name in defined], set(used)
    while waiting:
        words = {node.id for node in ast.walk(defined[waiting.pop()]) if isinstance(node, ast.Name)}
        fresh = (words & defined.keys()) - remaining
        remaining |= fresh
        waiting += fresh
    lines: list[str | None] = list(text.splitlines())
    for name, node in defined.items():
        if name not in remaining:
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [None] * (last - node.lineno + 1)
    return re.sub("\n{4,}", "\n\n\n", "\n".join(line for line in lines if line is not None)).strip("\n")
