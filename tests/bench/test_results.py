"""What a report holds, and how it is written."""

from __future__ import annotations

import json

import pytest

from actconform.bench.results import FILE, read_throughput, write
from actconform.errors import UsageError


def test_figures_are_arithmetic_on_the_samples(timed):
    made = timed({"torch": 1e-3, "keras": 3e-3}, noise=0.0, copy=5e-4, copy_noise=0.0)
    torch, keras = made.measured[0].figures
    assert torch.rate == pytest.approx(1024 / 1e-3)
    assert torch.throughput == pytest.approx(8192 / 1e-3)
    assert torch.share == pytest.approx(0.5)
    assert keras.to_calibration.median == pytest.approx(6.0)
    assert (torch.fastest, keras.fastest) == ("torch", "torch")
    assert keras.to_fastest.median == pytest.approx(3.0)
    assert len(torch.samples) == made.rounds


def test_a_report_survives_its_file(timed, tmp_path):
    made = timed({"torch": 1e-3})
    write(tmp_path / "new" / "throughput.json", made)
    text = (tmp_path / "new" / "throughput.json").read_bytes()
    assert read_throughput(tmp_path / "new") == made
    assert json.loads(text)["schema"] == 1
    assert b"NaN" not in text
    assert b"Infinity" not in text


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff"])
def test_what_is_no_report_is_named_with_the_mend(tmp_path, text):
    assert read_throughput(tmp_path) is None
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(UsageError, match=r"throughput\.json: not what `actconform bench` writes .*: remove it"):
        read_throughput(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "throughput.json"
    write(path, {"old": 1})
    with pytest.raises(TypeError):
        write(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["throughput.json"]
