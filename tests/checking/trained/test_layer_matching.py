import numpy as np
import pytest
from framework import Recorder, conv2d, evidence, gelu, layer_norm, matched, partners, softmax
from onnx import helper
from small_models import made, numbers

from actconform.checking.trained.layer_matching import in_graph_layout
from actconform.types.trained import LayerRecord, TrainedRun

X = numbers(0, 2, 5, 16)
BLOCK = """(float[b, s, 16] x) => (float[b, s, 16] y)
{
    n = LayerNormalization <axis = -1> (x, gamma, beta)
    u = MatMul (n, up)
    v = Add (u, up_bias)
    g = Gelu (v)
    d = MatMul (g, down)
    y = Add (x, d)
}"""
WEIGHTS = {
    "gamma": 1 + numbers(1, 16, scale=0.2),
    "beta": numbers(2, 16, scale=0.2),
    "up": numbers(3, 16, 32, scale=0.3),
    "up_bias": numbers(4, 32),
    "down": numbers(5, 32, 16, scale=0.3),
}


def block(x=X, weights=WEIGHTS):
    """Return the run of a transformer's second half, whose graph is BLOCK."""
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    x = x.astype(np.float64)
    recorder = Recorder(x)
    norm = recorder.give("norm", layer_norm(x, wide["gamma"], wide["beta"]), x, parameters=("gamma", "beta"))
    up = recorder.give("up", norm @ wide["up"] + wide["up_bias"], norm, parameters=("up", "up_bias"))
    activated = recorder.give("act", gelu(up), up)
    recorder.give("drop", activated, activated)
    down = recorder.give("down", activated @ wide["down"], activated, parameters=("down",))
    total = recorder.give(":add", x + down, x, down)
    recorder.give("", total, x)
    return recorder.run(total)


def graph(text=BLOCK, weights=WEIGHTS, **changed):
    return made(text, {**weights, **changed}, opset=20)


WHOLE = {"norm": "n", "up": "v", "act": "g", "down": "d", ":add": "y"}


def test_each_layer_is_the_tensor_with_its_values():
    matching = matched(graph(), {"x": X}, block())
    assert partners(matching) == WHOLE
    assert evidence(matching) == {}
    assert matching.unmatched == ()


def test_layers_that_give_what_another_gave_are_its_aliases():
    matches = {match.layer: match.aliases for match in matched(graph(), {"x": X}, block()).matches}
    assert matches["act"] == ("drop",)
    assert matches[":add"] == ("",)


def test_a_copy_that_the_graph_does_not_have_is_an_alias_too():
    run = block()
    place = next(layer.outputs[0] for layer in run.layers if layer.name == "act")
    run.tensors.append(run.tensors[place].copy())
    run.layers.append(LayerRecord("copy", "Copy", (place,), (len(run.tensors) - 1,)))
    matching = matched(graph(), {"x": X}, run)
    assert next(match.aliases for match in matching.matches if match.layer == "act") == ("drop", "copy")
    assert matching.unmatched == ()


def test_nodes_within_a_layer_bear_its_name():
    assert matched(graph(), {"x": X}, block()).layer_of["MatMul:u"] == "up"


FAULTS = {
    "epsilon": ("norm", graph(BLOCK.replace("axis = -1", "axis = -1, epsilon = 0.01"))),
    "gelu by tanh": ("act", graph(BLOCK.replace("Gelu (v)", 'Gelu <approximate = "tanh"> (v)'))),
    "a weight in float16": ("down", graph(down=WEIGHTS["down"].astype(np.float16).astype(np.float32))),
    "no bias": ("up", graph(BLOCK.replace("u = MatMul (n, up)\n    v = Add (u, up_bias)", "v = MatMul (n, up)"))),
    "another activation": ("act", graph(BLOCK.replace("Gelu", "LeakyRelu"))),
    "another weight": ("up", graph(up=numbers(9, 16, 32, scale=0.3))),
    "another sum": (":add", graph(BLOCK.replace("Add (x, d)", "Sub (x, d)"))),
}


@pytest.mark.parametrize(("layer", "model"), FAULTS.values(), ids=FAULTS)
def test_the_layer_at_fault_is_found_and_all_behind_it_match_by_value(layer, model):
    matching = matched(model, {"x": X}, block())
    assert partners(matching) == WHOLE
    assert set(evidence(matching)) == {layer}


def test_every_layer_of_a_kind_may_be_at_fault():
    run = Recorder(x := X.astype(np.float64))
    for place in range(6):
        weight = numbers(place, 16, 16, scale=0.3).astype(np.float64)
        x = run.give(f"{place}.linear", x @ weight, x)
        x = run.give(f"{place}.relu", np.maximum(x, 0), x)
    nodes = [f"a{i} = MatMul ({f'r{i - 1}' if i else 'x'}, w{i}) r{i} = LeakyRelu (a{i})" for i in range(6)]
    text = f"(float[b, s, 16] x) => (float[b, s, 16] r5) {{ {' '.join(nodes)} }}"
    model = made(text, {f"w{i}": numbers(i, 16, 16, scale=0.3) for i in range(6)})
    matching = matched(model, {"x": X}, run.run(x))
    assert partners(matching) == {f"{i}.linear": f"a{i}" for i in range(6)} | {f"{i}.relu": f"r{i}" for i in range(6)}
    assert set(evidence(matching)) == {f"{i}.relu" for i in range(6)}


def test_a_fault_is_matched_by_the_name_of_the_node_or_by_its_weights():
    model = FAULTS["another weight"][1]
    assert evidence(matched(model, {"x": X}, block(), {"up": "up", "up_bias": "up_bias"})) == {"up": "weights"}
    for node in model.graph.node:
        if node.output[0] in "uv":
            node.metadata_props.append(helper.make_node("Relu", [], []).metadata_props.add(key="k"))
            node.metadata_props[-1].key = "pkg.torch.onnx.name_scopes"
            node.metadata_props[-1].value = "['', 'up', 'linear']"
    assert evidence(matched(model, {"x": X}, block())) == {"up": "source"}


# Layout


def folded_conv():
    """Return a run with a batch norm behind a convolution, and the graph's weight in which both are one."""
    x = numbers(0, 1, 3, 6, 6).astype(np.float64)
    weight, scale, shift = (
        array.astype(np.float64) for array in (numbers(1, 4, 3, 3, 3), 1 + numbers(2, 4) ** 2, numbers(3, 4))
    )
    run = Recorder(x)
    conv = run.give("conv", conv2d(x, weight), x, parameters=("conv.weight",))
    norm = run.give("bn", conv * scale[:, None, None] + shift[:, None, None], conv, parameters=("bn.weight", "bn.bias"))
    relu = run.give("relu", np.maximum(norm, 0), norm)
    merged = {"w": (weight * scale[:, None, None, None]).astype(np.float32), "b": shift.astype(np.float32)}
    return x.astype(np.float32), run.run(relu), merged


CONV = "(float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w, b) y = Relu (c) }"


def test_a_folded_layer_is_said_to_be_one_with_the_next():
    x, run, weights = folded_conv()
    matching = matched(made(CONV, weights), {"x": x}, run)
    assert partners(matching) == {"bn": "c", "relu": "y"}
    assert matching.folded == ("conv and bn are one Conv",)
    assert [(gone.layer, gone.reason) for gone in matching.unmatched] == [
        ("conv", "folded into bn: the Conv Conv:c computes both")
    ]


@pytest.mark.parametrize("names", [{}, {"w": "conv.weight"}], ids=["no names", "names of the first layer"])
def test_a_fault_in_a_folded_layer_is_not_taken_for_the_first_of_both(names):
    x, run, weights = folded_conv()
    weights = {**weights, "b": 2 * weights["b"]}
    matching = matched(made(CONV, weights), {"x": x}, run, names)
    assert partners(matching) == {"bn": "c", "relu": "y"}
    assert list(evidence(matching)) == ["bn"]


def test_channels_may_be_first_or_last():
    x = numbers(0, 2, 5, 6, 3)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    weight = numbers(1, 4, 3, 1, 1)
    conv = run.give("conv", np.einsum("bhwc,oc->bhwo", wide, weight[:, :, 0, 0].astype(np.float64)), wide)
    relu = run.give("relu", np.maximum(conv, 0), conv)
    text = "(float[n, h, w, 3] x) => (float[n, h, w, 4] y) { t = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv (t, k) r = Relu (c) y = Transpose <perm = [0, 2, 3, 1]> (r) }"
    matching = matched(made(text, {"k": weight}), {"x": x}, run.run(relu))
    assert partners(matching) == {"conv": "c", "relu": "r"}
    match = matching.matches[0]
    assert match.permutation == (0, 3, 1, 2)
    assert in_graph_layout(match, run.tensors[match.trained]).shape == (2, 4, 5, 6)


def test_a_view_does_not_take_the_place_of_the_layer_that_computed_it():
    x = numbers(0, 2, 5, 16)
    wide, weight = x.astype(np.float64), numbers(1, 16, 16)
    run = Recorder(wide)
    linear = run.give("linear", wide @ weight.astype(np.float64), wide)
    heads = run.give(":view", linear.reshape(2, 5, 4, 4), linear)
    turned = run.give(":transpose", heads.transpose(0, 2, 1, 3), heads)
    text = """(float[b, s, 16] x) => (float[b, h, s, d] y)
    { f = Reshape (x, rows) m = MatMul (f, w) h = Reshape (m, split) y = Transpose <perm = [0, 2, 1, 3]> (h) }"""
    shapes = {"rows": np.array([-1, 16]), "split": np.array([2, 5, 4, 4])}
    matching = matched(made(text, {"w": weight, **shapes}), {"x": x}, run.run(turned))
    assert partners(matching) == {"linear": "m", ":view": "h", ":transpose": "y"}


def test_equal_tensors_are_told_apart_by_their_order():
    x = numbers(0, 4, 16)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    first = run.give("first", np.maximum(wide, 0), wide)
    second = run.give("second", np.maximum(first, 0), first)
    text = "(float[b, 16] x) => (float[b, 16] y) { a = Relu (x) y = Relu (a) }"
    assert partners(matched(made(text), {"x": x}, run.run(second))) == {"first": "a", "second": "y"}


def test_the_same_numbers_in_another_order_are_another_tensor():
    x = numbers(0, 4, 16)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    doubled = run.give("doubled", 2 * wide, wide)
    run.give("shuffled", np.random.default_rng(1).permuted(doubled.reshape(-1)).reshape(4, 16), wide)
    text = "(float[b, 16] x) => (float[b, 16] y) { y = Add (x, x) }"
    assert partners(matched(made(text), {"x": x}, run.run(doubled))) == {"doubled": "y"}


def test_constants_and_zeros_are_not_matched():
    x = numbers(0, 4, 16)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    state = run.give("state", np.zeros((4, 16)), wide)
    total = run.give("sum", wide + state + 1, wide, state)
    text = (
        "(float[b, 16] x) => (float[b, 16] y) { z = Mul (x, zero) e = Mul (z, zero) s = Add (x, e) y = Add (s, one) }"
    )
    constants = {"zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    matching = matched(made(text, constants), {"x": x}, run.run(total))
    assert partners(matching) == {"sum": "y"}
    assert "same number" in matching.unmatched[0].reason


def test_few_numbers_that_agree_by_chance_are_not_matched():
    x = numbers(0, 4, 16)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    size = run.give("size", np.array([0.25, 1.5]), wide)  # of the input only
    largest = run.give("largest", wide.max(-1), wide)
    double = run.give("double", 2 * largest, largest)
    text = "(float[b, 16] x) => (float[b] y, float[2] z) { m = ReduceMax <keepdims = 0> (x, last) y = Add (m, m) z = Mul (two, two) }"
    constants = {"last": np.array([-1]), "two": np.sqrt(np.array([0.25, 1.5], np.float32))}
    matching = matched(made(text, constants, opset=18), {"x": x}, run.run(double, size))
    assert partners(matching) == {"largest": "m", "double": "y"}


def test_masks_of_infinity_or_the_lowest_number_do_not_hide_the_scores():
    x = numbers(0, 6, 6)
    wide = x.astype(np.float64)
    for lowest, framework in ((-3.4e38, -1.7e308), (-np.inf, -np.inf), (-1e4, -1e4)):
        below = np.tril(np.ones((6, 6), bool))
        run = Recorder(wide)
        scores = run.give("scores", np.where(below, wide, wide + framework), wide)
        run.give("others", np.where(below, 0.999 * wide, 0.999 * wide + framework), wide)
        weights = run.give("softmax", softmax(scores), scores)
        text = "(float[6, 6] x) => (float[6, 6] y) { s = Add (x, mask) y = Softmax (s) }"
        model = made(text, {"mask": np.where(below, 0, lowest).astype(np.float32)})
        found = partners(matched(model, {"x": x}, run.run(weights)))
        assert found == ({"softmax": "y"} if lowest == -3.4e38 else {"scores": "s", "softmax": "y"})


def test_a_small_branch_is_not_taken_for_what_it_is_added_to():
    x = numbers(0, 4, 64)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    stem = run.give("stem", np.tanh(wide), wide)
    branch = run.give("branch", np.sin(stem), stem)
    total = run.give("block", stem + np.float64(np.float32(1e-6)) * branch, stem, branch)
    text = "(float[b, 64] x) => (float[b, 64] y) { a = Tanh (x) s = Sin (a) m = Mul (s, small) y = Add (a, m) }"
    matching = matched(made(text, {"small": np.array(1e-6, np.float32)}), {"x": x}, run.run(total))
    assert partners(matching) == {"stem": "a", "branch": "s", "block": "y"}


# Native runs and other formats


def test_a_run_in_float32_matches_too():
    run = block()
    native = TrainedRun(
        outputs={name: array.astype(np.float32) for name, array in run.outputs.items()},
        layers=run.layers,
        tensors=[array.astype(np.float32) for array in run.tensors],
    )
    matching = matched(graph(), {"x": X}, native)
    assert partners(matching) == WHOLE
    assert evidence(matching) == {}


def test_a_graph_in_float16_matches_too():
    weights = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    matching = matched(graph(BLOCK.replace("float[", "float16["), weights), {"x": X.astype(np.float16)}, block())
    assert partners(matching) == WHOLE
    assert evidence(matching) == {}


def test_without_layers_nothing_is_matched():
    matching = matched(graph(), {"x": X}, TrainedRun(outputs={"y": X}))
    assert matching.matches == matching.unmatched == ()


def test_layers_of_another_size_are_unmatched_with_a_reason():
    run = block()
    run.tensors.append(np.random.default_rng(0).standard_normal((3, 7)))
    run.layers.append(LayerRecord("head", "Head", (0,), (len(run.tensors) - 1,)))
    (gone,) = matched(graph(), {"x": X}, run).unmatched
    assert gone.layer == "head"
    assert "[3, 7]" in gone.reason


def test_a_fault_that_a_small_factor_hides_is_found_at_its_layer():
    x = numbers(0, 4, 64)
    wide = x.astype(np.float64)
    run = Recorder(wide)
    stem = run.give("stem", np.tanh(wide), wide)
    branch = run.give("branch", gelu(stem), stem)
    scaled = run.give("scale", np.float64(np.float32(1e-6)) * branch, branch)
    total = run.give("block", stem + scaled, stem, scaled)
    text = '(float[b, 64] x) => (float[b, 64] y) { a = Tanh (x) s = Gelu <approximate = "tanh"> (a) m = Mul (s, small) y = Add (a, m) }'
    matching = matched(made(text, {"small": np.array(1e-6, np.float32)}, opset=20), {"x": x}, run.run(total))
    assert partners(matching) == {"stem": "a", "branch": "s", "scale": "m", "block": "y"}
    assert evidence(matching) == {"branch": "order"}


def test_a_run_in_float32_may_differ_by_its_own_rounding():
    run, generator = block(), np.random.default_rng(0)
    noisy = [(array + 2e-5 * generator.uniform(-1, 1, array.shape)).astype(np.float32) for array in run.tensors]
    native = TrainedRun(outputs={"y": noisy[-1]}, layers=run.layers, tensors=noisy)
    matching = matched(graph(), {"x": X}, native)
    assert partners(matching) == WHOLE
    assert evidence(matching) == {}


def test_layers_with_equal_weights_are_not_taken_for_each_other():
    x = wide = numbers(0, 4, 16).astype(np.float64)
    weight = numbers(1, 16, 16, scale=0.5)
    run = Recorder(wide)
    for place in range(4):
        wide = run.give(f"{place}.linear", wide @ weight.astype(np.float64), wide)
        wide = run.give(f"{place}.act", np.tanh(wide), wide)
    nodes = [
        f"a{i} = MatMul ({f't{i - 1}' if i else 'x'}, w) t{i} = {'Sin' if i == 1 else 'Tanh'} (a{i})" for i in range(4)
    ]
    text = f"(float[b, 16] x) => (float[b, 16] t3) {{ {' '.join(nodes)} }}"
    matching = matched(made(text, {"w": weight}), {"x": x.astype(np.float32)}, run.run(wide))
    assert partners(matching) == {f"{i}.linear": f"a{i}" for i in range(4)} | {f"{i}.act": f"t{i}" for i in range(4)}
    assert evidence(matching) == {"1.act": "order"}
