"""torch-compile computes what torch does, compiled whole, and says what it compiles with, or what to install."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform import Case, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_torch import TorchBackend, TorchCompile, compiled
from actconform_torch import torch_module as module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
LINEAR_STACK, TAGGER = (
    next(model for model in networks() if model.name == name) for name in ("linear-stack", "token-tagger")
)

# torch says once a process that its profile-guided choices are kept in a file; and it deprecates what it calls itself.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def facts() -> dict[str, str]:
    """Facts, or a skip where there is no C++ compiler."""
    try:
        return TorchCompile().facts()
    except Unavailable as unavailable:
        pytest.skip(str(unavailable))


def test_it_runs_where_it_is_asked_for_and_names_itself() -> None:
    assert (TorchCompile.name, TorchCompile.kind, TorchCompile.extra) == ("torch-compile", "framework", True)
    refused = TorchCompile().supports(Case("relu", "value", "f64", "torch-compile"))
    assert refused.reason == "torch-compile runs f32, f16, bf16 here, not f64"


def test_facts_tell_what_is_compiled_with(facts: dict[str, str]) -> None:
    eager = TorchBackend().facts()
    assert facts == {
        **eager,
        **{name: facts[name] for name in facts if name not in eager},
        "subnormals": facts["subnormals"],
    }
    assert facts["inductor"] == "default mode, fullgraph; kernels dynamic, models not"
    assert facts["compiler"]
    assert facts["vector_instructions"]
    assert facts["subnormals"] in ("kept", "flushed")


def test_code_for_other_instructions_is_kept_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In torch's own folder, code for AVX-512 is taken for AVX2: half of what it computes is never written."""
    module.import_torch()
    compiled._keep_apart.cache_clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled._keep_apart("avx512 avx512_vnni")
    compiled._keep_apart("avx512 avx512_vnni")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "actconform-avx512-avx512_vnni")
    compiled._keep_apart.cache_clear()


def test_without_a_compiler_it_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module.import_torch()
    from torch._inductor import cpp_builder, exc

    def none() -> str:
        raise exc.InvalidCxxCompiler("g++-none")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(Unavailable, match=r"needs a C\+\+ compiler: Compiler: g\+\+-none is not found.; install g\+\+"):
        TorchCompile().facts()


def test_a_compiler_that_does_not_work_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(function: Callable[..., Any], **_: Any) -> Any:
        raise RuntimeError("\nC++ compile error: no Python.h\nOutput: ...")

    monkeypatch.setattr(compiled, "_toolchain", lambda: ("g++", "avx2"))
    monkeypatch.setattr(compiled, "own", own)
    with pytest.raises(Unavailable, match=r"^torch.compile with g\+\+ fails: C\+\+ compile error: no Python.h$"):
        TorchCompile().facts()


@pytest.mark.usefixtures("facts")
def test_a_kernel_and_its_gradient_agree_with_the_truth_at_every_length() -> None:
    """The scalar loop, one vector, vectors and a tail; twice, as compiled code is used again."""
    kernel = KERNELS["gelu-tanh"]
    program, formula = TorchCompile().build(kernel, "f32"), FORMULAS["gelu-tanh"]
    assert program.implementation == "torch.nn.functional.gelu(approximate='tanh'), by torch.compile"
    for length in (67, 1, 16, 67):
        x = np.random.default_rng(length).uniform(-4, 4, length).astype(np.float32)
        g = np.linspace(-2, 2, length, dtype=np.float32)
        before = x.tobytes(), g.tobytes()
        wide = x.astype(np.float64)
        np.testing.assert_allclose(program.forward({"x": x})["y"], formula.value(wide, {}), rtol=1e-5, atol=1e-5)
        pulled = program.vjp({"x": x}, {"y": g})["d_x"]
        np.testing.assert_allclose(pulled, formula.derivative(wide, {}) * g, rtol=1e-5, atol=1e-5)
        assert (x.tobytes(), g.tobytes()) == before


@pytest.mark.usefixtures("facts")
def test_rows_of_bf16_agree_with_the_truth() -> None:
    kernel = KERNELS["softmax"]
    x = np.random.default_rng(5).uniform(-3, 3, (3, 17)).astype(ml_dtypes.bfloat16)
    g = np.random.default_rng(6).uniform(-1, 1, x.shape).astype(ml_dtypes.bfloat16)
    program, row = TorchCompile().build(kernel, "bf16"), ROW_FORMULAS["softmax"]
    wide = {"x": x.astype(np.float64)}
    y, d = program.forward({"x": x})["y"], program.vjp({"x": x}, {"y": g})["d_x"]
    assert y.dtype == d.dtype == ml_dtypes.bfloat16
    assert row.vjp is not None
    np.testing.assert_allclose(y.astype(np.float64), row.value(wide, kernel), rtol=0.02, atol=1e-3)
    wanted = row.vjp(wide, g.astype(np.float64), kernel)["d_x"]
    np.testing.assert_allclose(d.astype(np.float64), wanted, rtol=0.05, atol=2e-3)


@pytest.mark.usefixtures("facts")
def test_a_model_agrees_with_the_eager_one() -> None:
    inputs = {
        name: array.astype(np.float32)
        for name, array in {**draw_inputs(LINEAR_STACK), **draw_parameters(LINEAR_STACK)}.items()
    }
    program, eager = (backend.build_model(LINEAR_STACK, "f32") for backend in (TorchCompile(), TorchBackend()))
    assert program.implementation == f"{eager.implementation}, by torch.compile"
    one = {"loss": np.ones((), np.float32)}
    for got, wanted in (
        (program.intermediates(inputs), eager.intermediates(inputs)),
        (program.vjp(inputs, one), eager.vjp(inputs, one)),
    ):
        assert set(got) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_layer_that_the_compiler_does_not_take_is_unsupported_in_its_words(traced: list[int]) -> None:
    program = TorchCompile().build_model(TAGGER, "f32")
    with pytest.raises(Unsupported, match="RNN, GRU, or LSTM"):
        program.forward({**draw_inputs(TAGGER), **draw_parameters(TAGGER)})
    assert traced == []


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Functions are traced as ever, and run eagerly; the number of operations of each trace."""
    torch = module.import_torch()
    seen: list[int] = []

    def backend(graph: Any, _: Any) -> Any:
        seen.append(sum(node.op in ("call_function", "call_method") for node in graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return seen


def test_all_kernels_of_a_run_are_compiled_and_none_runs_eagerly_in_silence(traced: list[int]) -> None:
    """torch gives up on code that it compiled too often, and all programs are closures of one definition."""
    x = np.linspace(-2, 2, 12, dtype=np.float32)
    for kernel in UNARY:
        TorchCompile().build(kernel, "f32").forward({"x": x})
    assert len(traced) == len(UNARY)


def test_one_program_serves_all_lengths_but_1(traced: list[int]) -> None:
    program = TorchCompile().build(KERNELS["softmax"], "f32")
    for shape in ((2, 5), (3, 17), (4, 1), (1, 4), (2, 4096), (7, 1)):
        program.forward({"x": np.ones(shape, np.float32)})
    assert len(traced) == 3  # any lengths; one column; one row


def test_a_function_that_makes_a_number_of_its_width_is_compiled_for_each(traced: list[int]) -> None:
    """torch gives up after 8 by default."""
    program = TorchCompile().build(KERNELS["hardmax"], "f32")
    for width in range(2, 14):
        np.testing.assert_array_equal(program.forward({"x": np.eye(width, dtype=np.float32)})["y"], np.eye(width))
    assert len(traced) >= 12


def test_what_cannot_be_compiled_whole_is_an_error(traced: list[int]) -> None:
    torch = module.import_torch()

    def broken(x: Any) -> Any:
        return x + float(x.sum().item() > 0) if print(x) is None else x

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled.own(broken, dynamic=True)(torch.ones(3))
