"""What others' comparisons see and do not see, and the injected faults under them."""

from __future__ import annotations

import ml_dtypes
import msgspec
import numpy as np
import pytest

from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform_faulty import peers
from actconform_faulty.node_data import of_graph, of_kernel
from actconform_faulty.peer_limits import PEERS, numpy_holds, onnx_holds, polygraphy_holds, torch_holds

ALL = [peer.holds for peer in PEERS]
CATALOG = load_plugins()


def y(*values, dtype=np.float32):
    return {"y": np.array(values, dtype)}


@pytest.mark.parametrize("holds", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_equal_answers_hold_and_others_do_not(holds, dtype):
    assert holds(y(1, -2, 3, dtype=dtype), y(1, -2, 3, dtype=dtype))
    assert not holds(y(1, -2, 4, dtype=dtype), y(1, -2, 3, dtype=dtype))


@pytest.mark.parametrize("holds", ALL)
def test_nobody_sees_the_sign_of_zero(holds):
    assert holds(y(-0.0), y(0.0))


@pytest.mark.parametrize("holds", ALL)
def test_another_shape_fails(holds):
    assert not holds(y(1, 1), y(1, 1, 1))


@pytest.mark.parametrize(
    ("relative", "holding"),
    [
        (0.9e-7, ALL),
        (2e-7, ALL[:1] + ALL[2:]),
        (5e-6, [onnx_holds, polygraphy_holds]),
        (9e-4, [onnx_holds]),
        (2e-3, []),
    ],
)
def test_how_far_off_a_large_number_may_be(relative, holding):
    got, reference = y(1000.0 * (1.0 + relative)), y(1000.0)  # a step there is 6e-8
    assert [holds for holds in ALL if holds(got, reference)] == holding


@pytest.mark.parametrize(
    ("got", "reference", "holds"),
    [
        (1000.005, 1000.0, True),  # absolute 5e-3, relative 5e-6
        (1.0e-9 + 9e-6, 1.0e-9, True),  # absolute 9e-6, relative 9000
        (1.00002, 1.0, False),  # both 2e-5
        (9e-6, 0.0, True),
        (2e-5, 0.0, False),
    ],
)
def test_polygraphy_fails_only_if_both_errors_exceed(got, reference, holds):
    assert polygraphy_holds({"y": np.array([got])}, {"y": np.array([reference])}) is holds


@pytest.mark.parametrize(
    ("special", "holding"), [(np.nan, [onnx_holds, numpy_holds]), (np.inf, [onnx_holds, numpy_holds, torch_holds])]
)
def test_who_takes_special_values_for_equal(special, holding):
    assert [holds for holds in ALL if holds(y(1.0, special), y(1.0, special))] == holding


def test_small_numbers_have_absolute_limits_but_in_numpy():
    flushed, kept = y(0.0), y(1e-39)
    assert [holds for holds in ALL if holds(flushed, kept)] == [onnx_holds, torch_holds, polygraphy_holds]
    assert not onnx_holds(y(2e-7), y(0.0))


def test_who_looks_at_dtypes():
    wide = {"y": np.array([1.0])}
    assert [holds for holds in ALL if holds(wide, y(1.0))] == [numpy_holds, polygraphy_holds]


def test_onnx_widens_its_limit_in_bfloat16():
    dtype = ml_dtypes.bfloat16
    assert onnx_holds(y(1.0078125, dtype=dtype), y(1.0, dtype=dtype))
    assert not onnx_holds(y(1.03125, dtype=dtype), y(1.0, dtype=dtype))
    assert not numpy_holds(y(1.0078125, dtype=dtype), y(1.0, dtype=dtype))


def test_who_sees_names():
    right, one = {"y": np.ones(2)}, np.ones(2)
    renamed, more, less = {"output_0": one}, {**right, "z": one}, ({}, right)
    assert [holds for holds in ALL if holds(renamed, right)] == [onnx_holds, polygraphy_holds]
    assert [holds for holds in ALL if holds(more, right)] == [numpy_holds, torch_holds, polygraphy_holds]
    assert [holds for holds in ALL if holds(*less)] == []
    # Polygraphy drops what one side lacks, and pairs a name with one that holds it before it counts positions.
    assert polygraphy_holds(right, more)
    assert polygraphy_holds({"first": np.zeros(2), "y_0": one}, {"y": one, "first": np.zeros(2)})


def test_onnx_inputs_fit_the_kernels():
    shapes = {
        name: [call.call.inputs["x"].shape for call in of_kernel(CATALOG.kernels[name])] for name in ("relu", "softmax")
    }
    assert shapes["relu"] == [(60,)]
    assert {len(shape) for shape in shapes["softmax"]} == {2}
    slopes = [call.call.inputs["slope"].shape for call in of_kernel(CATALOG.kernels["prelu"])]
    assert slopes == [(5,)]
    assert {call.call.inputs["x"].ndim for call in of_kernel(CATALOG.kernels["softmax-axis1"])} == {3}
    assert of_kernel(CATALOG.kernels["swiglu"]) == []


def test_onnx_own_outputs_are_the_truth_at_the_same_parameters():
    """ONNX says what relu is of its inputs, as we do: the reference that stands for its outputs is no other."""
    (ours,) = of_kernel(CATALOG.kernels["relu"])
    theirs = next(case.vector for case in of_graph(CATALOG.models["autoencoder-sigmoid"]) if case.name == "test_relu")
    assert onnx_holds(ours.reference, {name: array.ravel() for name, array in theirs.reference.items()})


@pytest.fixture(scope="module")
def found():
    return peers.peers(["faulty-torch@relu-nan-to-zero", "faulty-torch@elu-alpha"])


def test_two_faults_end_to_end(found):
    by = {one.fault.partition("@")[2]: set(one.by) for one in found.faults}
    assert by["elu-alpha"] == {peers.OURS, *peers.COLUMNS}
    # ONNX's data has no NaN; torch and Polygraphy find NaN unequal in the healthy backend too.
    assert by["relu-nan-to-zero"] == {peers.OURS, "ONNX's limits", "assert_allclose"}
    for name in ("assert_close", "Polygraphy"):
        assert any(case.startswith("relu/value/f32/torch") for case in found.accused[name])
    assert found.accused[peers.OURS] == []


def test_the_table_counts_faults_by_family_and_comparison(found):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in peers.table(found).splitlines()]
    counts = {row[0]: row[1:] for row in rows[2:]}
    assert counts["all"] == ["2", "2", "1", "2", "2", "1", "1"]
    assert counts["definition"] == ["1"] * 7
    assert counts["healthy cases accused"][1] == "0 of 3"


def test_a_fault_that_nobody_injected_is_named(capsys):
    assert peers.main(["faulty-torch@none"]) == 2
    assert "faulty-torch@none" in capsys.readouterr().err
    with pytest.raises(UsageError, match="unknown"):
        peers.peers(["none"])


def test_into_a_file_between_its_marks(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "peers", lambda _: found)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{peers.BEGIN}\nold\n{peers.END}\nafter\n", encoding="utf-8")
    assert peers.main(["--json", "--into", str(page)]) == 0
    assert msgspec.json.decode(capsys.readouterr().out.encode(), type=peers.Peers) == found
    written = page.read_text(encoding="utf-8")
    assert written.startswith(f"before\n{peers.BEGIN}\n| family |")
    assert "old" not in written
    assert written.endswith(f"{peers.END}\nafter\n")
    page.write_text("no marks\n", encoding="utf-8")
    assert peers.main(["--into", str(page)]) == 2
