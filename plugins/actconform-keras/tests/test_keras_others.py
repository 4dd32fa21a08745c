"""keras-xla, keras-jax and keras-torch: values and gradients against the truth, facts, refusals; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from actconform import Case, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.machine.cpu import cpu_capability
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform.plugin.framework import thread_count
from actconform_keras import KerasJax, KerasTorch, KerasXla
from actconform_keras.engines import Xla, vjp_artifact
from actconform_keras.keras_module import keras_on
from actconform_keras.others import xla_facts
from tests.missing_package import without

OTHERS = {"keras-xla": KerasXla, "keras-jax": KerasJax, "keras-torch": KerasTorch}
NEEDS = {"keras-xla": "tensorflow", "keras-jax": "jax", "keras-torch": "torch"}
KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
ASKED = ("gelu-tanh", "hard-sigmoid-relu6", "leaky-relu-0.3", "softmax-axis1", "prelu", "swiglu", "hardmax")

# Asked of each in its own process: Keras takes its backend once. Everything is told as JSON.
QUESTIONS = """
import json, sys
import ml_dtypes, numpy as np
import actconform_keras
from actconform import Unavailable
from actconform.catalog.kernels import ROWS, UNARY
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.catalog.models.zoo import networks

def drawn(kernel, dtype):
    rng = np.random.default_rng(20)
    if kernel.form == "unary":
        return {"x": rng.uniform(-5, 5, 33).astype(dtype)}
    shape = (3, 6, 5) if kernel.axis == 1 else (3, 8)
    x = {"x": rng.uniform(-4, 4, shape).astype(dtype)}
    return x | ({"slope": rng.uniform(-1, 1, 8).astype(dtype)} if "slope" in kernel.inputs else {})

def told(arrays):
    return {name: [str(array.dtype), array.astype(np.float64).tolist()] for name, array in arrays.items()}

backend = getattr(actconform_keras, sys.argv[1])()
try:
    answers = {"facts": backend.facts(), "kernels": {}}
except Unavailable as unavailable:
    sys.exit(print(json.dumps({"unavailable": str(unavailable)})))
kernels = {kernel.name: kernel for kernel in UNARY + ROWS}
for name in sys.argv[2].split():
    for dtype in (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)):
        short = "bf16" if dtype.itemsize == 2 else "f32"
        inputs, program = drawn(kernels[name], dtype), backend.build(kernels[name], short)
        before = {one: array.tobytes() for one, array in inputs.items()}
        y = program.forward(inputs)["y"]
        g = np.random.default_rng(30).choice([-2.0, -0.5, 1.0], y.shape).astype(dtype)
        got = {"y": y} | (program.vjp(inputs, {"y": g}) if kernels[name].differentiable else {})
        program.close()
        same = {one: array.tobytes() for one, array in inputs.items()} == before
        answers["kernels"][f"{name}/{short}"] = [told(inputs), g.astype(float).tolist(), told(got), same, program.implementation]
model = next(model for model in networks() if model.name == "linear-stack")
program = backend.build_model(model, "f32")
inputs = {n: a.astype(np.float32) for n, a in {**draw_inputs(model), **draw_parameters(model)}.items()}
got = {**program.forward(inputs), **program.intermediates(inputs), **program.vjp(inputs, {"loss": np.ones((), np.float32)})}
answers["model"] = told(got)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module", params=OTHERS)
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a backend answers, with its name, or a skip where it is not there."""
    command = [sys.executable, "-c", QUESTIONS, OTHERS[request.param].__name__, " ".join(ASKED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if "unavailable" in found:
        pytest.skip(found["unavailable"])
    return found | {"name": request.param}


@pytest.mark.parametrize("name", OTHERS)
def test_they_run_where_they_are_asked_for_and_name_themselves(name: str) -> None:
    assert (OTHERS[name].name, OTHERS[name].kind, OTHERS[name].extra) == (name, "framework", True)
    refused = OTHERS[name]().supports(Case("relu", "value", "f64", name))
    assert refused.reason == f"{name} runs f32, f16, bf16 here, not f64"


def test_facts_name_the_framework_and_how_it_computes(answers: dict[str, Any]) -> None:
    facts = answers["facts"]
    assert {"keras", NEEDS[answers["name"]], "numpy"} <= set(facts)
    assert facts["device"] == "cpu"
    assert facts["threads"] == str(thread_count())
    assert facts["subnormals"] in ("kept", "flushed")
    assert facts["cpu_capability"]
    assert facts["onednn_settings"]
    assert all(type(fact) is str for fact in facts.values())
    assert ("xla_flags" in facts) == (answers["name"] != "keras-torch")


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        ("", "AVX512"),
        ("--xla_cpu_max_isa=AVX2 --xla_dump_to=/tmp/x", "AVX2"),
        ("--xla_cpu_max_isa=SSE4_2", "SSE"),
        ("--xla_cpu_max_isa=AVX512_VNNI", "AVX512"),
    ],
)
def test_instructions_that_xla_may_not_use_are_no_fact(
    monkeypatch: pytest.MonkeyPatch, flags: str, allowed: str
) -> None:
    monkeypatch.setenv("XLA_FLAGS", flags)
    facts = xla_facts()
    assert facts["cpu_capability"] == cpu_capability(allowed)
    assert facts["xla_flags"] == (flags or "none")


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", ASKED)
def test_kernels_and_their_gradients_agree_with_the_truth(answers: dict[str, Any], name: str, dtype: str) -> None:
    inputs, g, got, untouched, said = answers["kernels"][f"{name}/{dtype}"]
    kernel, wide = KERNELS[name], {one: np.array(numbers) for one, (_, numbers) in inputs.items()}
    if kernel.form == "unary":
        formula = FORMULAS[name]
        wanted = {"y": formula.value(wide["x"], kernel.parameters)}
        wanted["d_x"] = formula.derivative(wide["x"], kernel.parameters) * np.array(g)
    else:
        row = ROW_FORMULAS[name]
        wanted = {"y": row.value(wide, kernel)} | (row.vjp(wide, np.array(g), kernel) if row.vjp else {})
    assert set(got) == set(wanted)
    limits = {"rtol": 1e-5, "atol": 1e-5} if dtype == "f32" else {"rtol": 0.1, "atol": 0.1}
    for one, truth in wanted.items():
        assert got[one][0] == {"f32": "float32", "bf16": "bfloat16"}[dtype]
        np.testing.assert_allclose(np.array(got[one][1]), truth, err_msg=one, **limits)
    assert untouched
    assert said.endswith(", by tf.function(jit_compile=True)") == (answers["name"] == "keras-xla")


def test_a_model_of_keras_layers_runs_and_they_agree(answers: dict[str, Any]) -> None:
    from actconform.catalog.models.zoo import networks
    from actconform.testdata.model_tensors import draw_inputs, draw_parameters
    from actconform_keras import KerasBackend

    model = next(model for model in networks() if model.name == "linear-stack")
    inputs = {n: a.astype(np.float32) for n, a in {**draw_inputs(model), **draw_parameters(model)}.items()}
    program = KerasBackend().build_model(model, "f32")
    wanted = {**program.forward(inputs), **program.intermediates(inputs)}
    wanted |= program.vjp(inputs, {"loss": np.ones((), np.float32)})
    assert set(answers["model"]) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(np.array(answers["model"][name][1]), array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_without_its_framework_a_backend_names_what_to_install(package: str) -> None:
    code = (
        f"{without(package)}"
        "import actconform, actconform_keras\n"
        f"try: actconform_keras.Keras{package.title()}().facts()\n"
        "except actconform.Unavailable as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f'{package} is not installed: pip install "actconform-keras[{package}]"'


def test_two_backends_of_keras_do_not_meet_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    keras_on("tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setitem(sys.modules, "jax", sys)  # whatever it is, it is there
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("NPROC", "1")
    with pytest.raises(
        Unavailable, match="keras already runs on tensorflow in this process: start with KERAS_BACKEND=jax"
    ):
        KerasJax().facts()


def test_xla_compiles_what_is_asked_for_and_says_what_it_cannot() -> None:
    tf, xla = keras_on("tensorflow"), Xla()
    seen: list[bool] = []

    def doubled(tensors: Any) -> Any:
        seen.append(tf.executing_eagerly())
        return {"y": tensors["x"] + tensors["x"]}

    call = xla.compiled(doubled)
    tensors = xla.tensors({"x": np.ones(3, np.float32)})
    for _ in range(2):
        np.testing.assert_array_equal(xla.arrays(xla.whole(call, tensors)())["y"], [2, 2, 2])
    assert seen == [False]  # traced once, and never run eagerly
    words = xla.compiled(lambda given: {"y": tf.strings.to_number(tf.strings.as_string(given["x"]))})
    with pytest.raises(Unsupported, match="Detected unsupported operations"):
        xla.whole(words, tensors)()
    traced = xla.compiled(lambda _: {"y": tf.range(tf.constant(3.0, tf.float16), dtype=tf.float16)})
    with pytest.raises(Unsupported, match="Unsupported dtype"):
        xla.whole(traced, tensors)()
    converted = xla.compiled(lambda given: {"y": tf.range(tf.cast(given["x"][0], tf.float16), dtype=tf.float16)})
    with pytest.raises(Unsupported, match="Invalid type for Range half"):
        xla.whole(converted, tensors)()


def test_a_gradient_without_a_path_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="some kernel: no path from y back to x, so there is no d_x"):
        vjp_artifact({"x": None}, "some kernel", "y")
