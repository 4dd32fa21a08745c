"""Kernels whose outputs depend on a row, on pairs or on two inputs."""

from __future__ import annotations

from math import inf, nan

from actconform.types import Convention, Kernel

TORCH = "torch.nn.functional"
KERAS = "keras.activations"
GATE = "a gate that is inf or 0 meets a factor that is 0 or inf, as written; the limit is another"
GATED = (Convention("value", (-inf, inf), GATE, (nan,)), Convention("gradient", (-inf, inf), GATE, (nan,)))
MASKED = Convention("value", (-inf, inf), "a row without a finite maximum: inf - inf as written", (nan,))

ROWS = (
    Kernel(
        name="prelu",
        definition="x where x > 0, else slope x; slope per last axis",
        source="He et al. 2015; ONNX PRelu",
        form="row",
        inputs=("x", "slope"),
        tier="exact",
        exact_ulp=0.5,
    ),
    Kernel(
        name="softmax",
        definition="exp(x_i - max x) / sum_j exp(x_j - max x) over the last axis",
        source="ONNX Softmax (opset 13)",
        form="row",
        range=(0.0, 1.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="softmax-axis1",
        definition="softmax over axis 1",
        source="ONNX Softmax axis=1",
        form="row",
        axis=1,
        range=(0.0, 1.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="log-softmax",
        definition="x_i - max x - log sum_j exp(x_j - max x) over the last axis",
        source="ONNX LogSoftmax",
        form="row",
        range=(-inf, 0.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="log-softmax-axis1",
        definition="log-softmax over axis 1",
        source="ONNX LogSoftmax axis=1",
        form="row",
        axis=1,
        range=(-inf, 0.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="softmin",
        definition="softmax(-x) over the last axis",
        source=f"{TORCH}.softmin",
        form="row",
        range=(0.0, 1.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="hardmax",
        definition="1 at the first maximum of the last axis, else 0; no gradient, by declaration",
        source="ONNX Hardmax",
        form="row",
        tier="exact",
        range=(0.0, 1.0),
        differentiable=False,
    ),
    Kernel(
        name="sparsemax",
        definition="max(0, x_i - tau) with tau such that the row sums to 1: the Euclidean projection on the simplex",
        source=f"Martins and Astudillo 2016; {KERAS}.sparsemax",
        form="row",
        range=(0.0, 1.0),
        conventions=(MASKED,),
    ),
    Kernel(
        name="max",
        definition="the maximum of the last axis",
        source="ONNX ReduceMax",
        form="row",
        tier="exact",
        output_width="one",
    ),
    Kernel(
        name="maxout",
        definition="maximum of 2 pieces: x of width 2n read as (n, 2)",
        source="Goodfellow et al. 2013",
        form="row",
        parameters={"pieces": 2.0},
        tier="exact",
        output_width="half",
    ),
    Kernel(
        name="argmax",
        definition="the index of the first maximum of the last axis; NaN counts as the maximum; no gradient, by declaration",
        source="ONNX ArgMax",
        form="row",
        tier="exact",
        differentiable=False,
        output_dtype="int64",
        output_width="one",
    ),
    Kernel(
        name="glu",
        definition="a sigmoid(b), (a, b) the halves of the last axis",
        source="Dauphin et al. 2016; torch glu",
        form="row",
        output_width="half",
    ),
    Kernel(
        name="reglu",
        definition="relu(a) b, (a, b) the halves of the last axis",
        source="Shazeer 2020",
        form="row",
        tier="exact",
        exact_ulp=0.5,
        output_width="half",
    ),
    Kernel(
        name="swiglu",
        definition="silu(a) b, (a, b) the halves of the last axis",
        source="Shazeer 2020",
        form="row",
        conventions=GATED,
        output_width="half",
    ),
    Kernel(
        name="geglu",
        definition="gelu-erf(a) b, (a, b) the halves of the last axis",
        source="Shazeer 2020",
        form="row",
        conventions=GATED,
        output_width="half",
    ),
)
