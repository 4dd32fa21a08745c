"""No text from outside steers a terminal, is obeyed in a log, hides what it is, or fills a screen."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.text import LONGEST, labelled, listed, number_of, one_line, visible

COMMANDS = (
    "error",
    "warning",
    "notice",
    "debug",
    "group",
    "endgroup",
    "add-mask",
    "stop-commands",
    "set-output",
    "set-env",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("before", ["", "a name ", "\n", "  ", "x"])
def test_no_command_of_a_job_is_left_anywhere_a_line_may_begin(command: str, before: str) -> None:
    for spelled in (command, command.upper()):
        text = visible(f"{before}::{spelled} file=a::text")
        assert f"::{spelled}" not in text
        assert f"\\x3a:{spelled} file=a::text" in text
    assert "##[" not in visible(f"{before}##[{command}]text")
    assert "##vso[" not in visible(f"{before}##vso[task.{command}]text")


def test_what_is_no_command_stays_as_it_is() -> None:
    for text in (
        "torch::nn::Linear",
        "std::vector<int>::at",
        "a::b",
        "# title",
        "## part [a]",
        "errors::of",
        "größer ≥ 1 😀",
    ):
        assert visible(text) == text


@pytest.mark.parametrize(
    "letter",
    ["\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041", "\ud800", "\x00"],
)
def test_what_is_no_letter_is_written_out(letter: str) -> None:
    assert letter not in visible(f"a{letter}b")
    assert visible(f"a{letter}b") == f"a{ascii(letter)[1:-1]}b"


@given(st.text())
def test_all_that_comes_back_can_be_shown(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in shown if letter not in "\t\n")
    assert visible(shown) == shown
    assert "\n" not in one_line(text)


def test_a_long_message_is_cut_and_says_by_how_much() -> None:
    line = one_line("begins " + "x" * 100_000 + " ends: do this")
    assert len(line) < LONGEST + 50
    assert re.fullmatch(r"begins x+… \(98,021 letters left out\) …x+ ends: do this", line)
    assert one_line("a\n\n  b\tc ") == "a b c"


@pytest.mark.parametrize(
    ("count", "words", "shown"),
    [
        (0, ("element",), "0 elements"),
        (1, ("element",), "1 element"),
        (1234, ("element",), "1,234 elements"),
        (1, ("value is", "values are"), "1 value is"),
        (2, ("value is", "values are"), "2 values are"),
    ],
)
def test_one_of_a_thing_is_no_plural(count: int, words: tuple[str, ...], shown: str) -> None:
    assert number_of(count, *words) == shown


def test_the_first_of_a_list_are_named_and_the_rest_counted() -> None:
    assert listed([], 2) == ""
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a"] * 1236, 2, "; ") == "a; a and 1,234 more"


def test_a_node_is_called_by_its_escaped_name_and_operator():
    assert labelled("fc", "MatMul") == "fc (MatMul)"
    assert labelled("a\nb", "Mat\x1bMul") == f"{one_line('a' + chr(10) + 'b')} ({one_line('Mat' + chr(27) + 'Mul')})"
    assert "\n" not in labelled("a\nb", "Mul")
