"""A run is shown on whatever stream there is, and text from outside stays text."""

from __future__ import annotations

import errno
import io
import sys

import pytest
from rich.text import Text

from actconform.report.terminal.console import open_console, plain, take_faults
from actconform.text import visible


class Full(io.StringIO):
    encoding = "utf-8"

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("to_stderr", [False, True])
def test_a_full_disk_or_a_reader_that_left_ends_nothing_and_the_disk_is_kept_in_mind(monkeypatch, to_stderr):
    monkeypatch.setattr(sys, "stderr" if to_stderr else "stdout", Full())
    open_console(to_stderr=to_stderr).print("a line")
    assert {fault.errno for fault in take_faults()} == {errno.ENOSPC}  # a reader that left is none
    assert take_faults() == []


def test_a_log_in_ascii_tells_known_from_new_and_not_run(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    open_console().print("▲tail ●tail △0 ? –")
    assert raw.getvalue() == b"~tail !tail ^0 ? -\n"


def test_line_100_of_a_file_stays_line_100(capsys):
    open_console().print(plain("server.py:100: raise"))
    assert capsys.readouterr().out == "server.py:100: raise\n"


@pytest.mark.parametrize("text", ["[red]x[/]", "\x1b[31mred", "bell\x07", "a\nb\tc", "\x9b31m"])
def test_markup_and_control_characters_are_shown_not_obeyed(text):
    shown = Text.from_markup(plain(text)).plain
    assert shown == visible(text)
    assert not any((ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 for sign in shown)
