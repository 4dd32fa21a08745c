"""A check on the terminal: what was checked, the outputs, the first fault and whose it is, how sharp the test was."""

from __future__ import annotations

import io

import made_check
import pytest
from msgspec.structs import replace
from rich.console import Console

from actconform.checking.result import RoundingTie
from actconform.checking.spread import LIMIT
from actconform.report.terminal.check_screen import check_lines, print_check

RESULTS = [
    made_check.check(),
    made_check.all_kinds(),
    made_check.ill_conditioned(),
    made_check.hostile(),
    made_check.hostile(made_check.LONG),
    made_check.check(made_check.ABSENT),
    made_check.check(samples=[], weights=[]),
]


def text(result, width=100, **fields):
    return "\n".join(line.plain for line in check_lines(result, width, **fields))


def test_a_fault_names_its_layer_whose_it_is_and_what_shows_it():
    lines = text(made_check.check(made_check.with_fault())).splitlines()
    assert lines[0] == "model.onnx   12 nodes, opset 17, 1 sample, batch 1"
    first = lines.index("ort-cpu   onnxruntime 1.31.1 · AVX2   NOT explained by rounding")
    assert lines[first + 1].startswith(
        f"  logits   380 spreads (limit {LIMIT:g}): NOT explained by rounding   relative error"
    )
    shown = "\n".join(lines[first:])
    assert "FIRST    encoder.3.norm (LayerNormalization)   412 times its bound; what it read is fine" in shown
    assert "BLAME    runtime: the runtime's own computation" in shown
    assert "         - openvino is within every bound" in shown
    assert 'source line: File "net.py", line 41' in shown
    assert "NOISE" not in shown


def test_where_rounding_explains_all_it_says_how_near_and_how_sharp():
    shown = text(made_check.check(), wrote=("out/index.html", "check.json"))
    assert "NOISE    the largest error is 79 % of its bound, at block0.relu_2 (Relu, level none)" in shown
    assert (
        "POWER    12 tensors judged at level none (loosest bound 4e-7), 6 at extended (4e-6), 4 at all (4e-5)" in shown
    )
    assert "loosest at block0.conv_0 (level all): a fault below 4e-5 of its largest value may go unseen" in shown
    assert "WROTE    out/index.html, check.json" in shown
    assert "FIRST" not in shown
    assert "BLAME" not in shown


def test_bounds_that_are_all_zero_hide_no_fault():
    exact = made_check.tensor("r", 0.0, "Reshape", looseness=0.0)
    shown = text(made_check.check(made_check.runtime(levels=[made_check.level(tensors=[exact])])))
    assert "1 tensor judged" in shown
    assert "unseen" not in shown


def test_a_tensor_over_its_bound_that_is_no_fault_is_told_in_words():
    exact = made_check.tensor("quantize", made_check.INF, "QuantizeLinear", got=214.0, wanted=215.0)
    shown = " ".join(text(made_check.check(made_check.runtime(levels=[made_check.level(tensors=[exact])]))).split())
    assert (
        "NOISE quantize (QuantizeLinear, level none) 214 where it must be exactly 215, as shown; every output" in shown
    )
    assert "∞" not in shown


def test_a_spread_is_explained_once_and_only_where_there_are_some():
    assert text(made_check.all_kinds()).count("how far the truth moves") == 1
    assert "how far" not in text(made_check.check(made_check.REFUSED))


def test_outputs_that_marks_changed_are_named():
    levels = [made_check.level(moved=("boxes",))]
    shown = " ".join(text(made_check.check(made_check.runtime(levels=levels))).split())
    assert "level none, sample 1, as they run unmarked: marking tensors changed boxes" in shown


def test_what_was_not_checked_is_named_with_its_reason():
    shown = text(made_check.all_kinds())
    assert "2 nodes not judged: no error bound for com.acme Fancy: fancy_0, fancy_1" in shown
    assert "two calls with equal inputs gave different boxes" in shown
    assert "it changed its inputs in place: image" in shown
    assert "openvino   onnxruntime 1.31.1 · AVX2   failed\n         RuntimeError: Check 'false' failed" in shown
    unchecked = shown[shown.index("NOT CHECKED") :]
    assert "layers of ort-cpu, level extended, sample 1: crash: the worker was killed by SIGSEGV" in unchecked
    assert "ort-cuda: no CUDA device" in unchecked
    assert "1 node that cannot be evaluated here (the runtime's answer was taken): fancy_0" in unchecked


def test_the_graphs_own_part_is_told_beside_the_runtimes():
    shown = text(made_check.ill_conditioned())
    assert "GRAPH    logits is ill-conditioned: rounding alone moves it by 0.8, and its largest value is 2.5" in shown
    assert "         Mul mul_3 gives 160,000, and f16 ends at 65,504" in shown
    tie = RoundingTie(node="bucket", op_type="Cast", sample=0, elements=2, size=289)
    shown = text(replace(made_check.ill_conditioned(), ties=[tie]))
    assert "rounding decides at bucket (Cast): 2 of 289 elements lie within rounding of its jump" in shown


def test_an_unbounded_layer_is_no_power():
    level = made_check.level(tensors=[made_check.tensor(looseness=made_check.INF)])
    assert "1 tensor at level none whose bound is larger than its values" in text(
        made_check.check(made_check.runtime(levels=[level]))
    )


def test_of_many_outputs_the_first_are_shown_and_the_rest_counted():
    outputs = [made_check.output(f"y{i}", 500.0 if i == 9 else 1.0) for i in range(12)]
    shown = text(made_check.check(made_check.runtime(outputs=outputs)))
    assert f"  y9   500 spreads (limit {LIMIT:g}): NOT explained by rounding" in shown
    assert "and 4 more outputs, none of them beyond the limit" in shown


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("result", RESULTS)
def test_lines_stay_within_the_width_and_show_what_steers_a_terminal_or_a_log(result, width):
    lines = [line.plain for line in check_lines(result, width, wrote=(made_check.LONG, made_check.HOSTILE))]
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    assert "::error" not in "".join(lines)


def test_the_console_gets_the_text_as_it_is():
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_check(console, made_check.check(model="[red]x[/].onnx"), ["out/index.html"])
    shown = console.file.getvalue()
    assert shown.startswith("[red]x[/].onnx   12 nodes")
    assert shown.endswith("WROTE    out/index.html\n")
