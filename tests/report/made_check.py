"""Results of checks made by hand, for tests of what is written of them."""

from __future__ import annotations

from typing import Any

from actconform.checking.result import (
    CheckResult,
    Conditioning,
    LevelCheck,
    ModelFault,
    OutputCheck,
    RuntimeCheck,
    SampleFacts,
    TensorCheck,
    Unjudged,
    Weight,
)
from actconform.checking.spread import LIMIT

HOSTILE = (
    "<script>window.harm=1</script><img src=x onerror=window.harm=1>::error::boo \u202egnol\u202c \x1b[31m {{data}} 😀"
)
LONG = "encoder/" + "layer/" * 830 + "Add"
INF = float("inf")
OPERATORS = ("Conv", "Add", "Relu", "MatMul", "LayerNormalization", "Softmax", "Gemm", "Sigmoid")


def tensor(node: str = "conv0", ratio: float = 0.4, op_type: str = "Conv", **fields: Any) -> TensorCheck:
    """A tensor with one error of `ratio` times its bound; `fields` override."""
    bound = 2.5e-6
    made: dict[str, Any] = {
        "tensor": f"{node}_out",
        "shape": (1, 8, 14, 14),
        "wanted_shape": (1, 8, 14, 14),
        "error": ratio * bound,
        "bound": bound,
        "place": (0, 3, 7, 1),
        "wanted": 0.8807970779778823,
        "got": 0.8807970779778823 + ratio * bound,
        "magnitude": 6.25,
        "lowest": -2.75,
        "highest": 6.25,
        "histogram": (1, 4, 30, 210, 640, 1000, 520, 130, 25, 6, 1, 1),
        "looseness": 4e-7,
        "segment": (node,),
    }
    return TensorCheck(node=node, op_type=op_type, ratio=ratio, **{**made, **fields})


def output(name: str = "logits", spreads: float = 3.2, **fields: Any) -> OutputCheck:
    made: dict[str, Any] = {
        "sample": 0,
        "shape": (1, 1000),
        "error": spreads * 1e-7,
        "spread": 1e-7,
        "magnitude": 12.5,
        "place": (0, 17),
        "got": 1.2500003,
        "wanted": 1.25,
        "decisions": 1,
        "decided_alike": 1,
        "explained": spreads <= LIMIT,
    }
    return OutputCheck(name=name, spreads=spreads, **{**made, **fields})


def level(name: str = "none", nodes: int = 12, **fields: Any) -> LevelCheck:
    """A run at a level, with a tensor of every node, or of those that survive optimization."""
    step = {"none": 1, "extended": 2}.get(name, 3)
    ratios = [0.0 if i % 7 == 0 else 0.05 + (i * 37 % 89) / 100 for i in range(nodes)]
    tensors = [
        tensor(
            f"block{i // 8}.{OPERATORS[i % 8].lower()}_{i}",
            ratios[i],
            OPERATORS[i % 8],
            segment=tuple(f"block{j // 8}.{OPERATORS[j % 8].lower()}_{j}" for j in range(max(0, i - step + 1), i + 1)),
            looseness=4e-7 * 10 ** (step - 1),
        )
        for i in range(0, nodes, step)
    ]
    made: dict[str, Any] = {"sample": 0, "marks": "all" if name == "none" else "surviving", "tensors": tensors}
    return LevelCheck(name=name, **{**made, **fields})


def runtime(name: str = "ort-cpu", **fields: Any) -> RuntimeCheck:
    made: dict[str, Any] = {
        "facts": {"onnxruntime": "1.31.1", "threads": "1", "cpu_capability": "AVX2"},
        "status": "explained",
        "outputs": [output(), output("boxes", 0.4, decisions=0, decided_alike=0)],
        "levels": [level("none"), level("extended"), level("all")],
        "seconds": 1.75,
    }
    return RuntimeCheck(name=name, **{**made, **fields})


def check(*runtimes: RuntimeCheck, **fields: Any) -> CheckResult:
    made: dict[str, Any] = {
        "model": "model.onnx",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "opset": 17,
        "nodes": 12,
        "operators": {"Conv": 4, "Add": 4, "Relu": 4},
        "samples": [
            SampleFacts(
                origin="drawn from the signature",
                shapes={"image": (1, 3, 14, 14), "mask": (1, 14)},
                drawn={"image": "normal", "mask": "zeros and ones, for where MatMul reads it"},
            )
        ],
        "weights": [
            Weight(name=f"block{i}.weight", shape=(64, 3, 3, 3), dtype="float32", lowest=-0.5 - i, highest=0.75)
            for i in range(5)
        ],
        "seed": 7,
        "actconform": "0.1.0",
        "seconds": 2.5,
    }
    return CheckResult(runtimes=list(runtimes or (runtime(),)), **{**made, **fields})


def faulty_tensor(**fields: Any) -> TensorCheck:
    made: dict[str, Any] = {"got": 0.8818, "error": 1.03e-3, "looseness": 3e-6}
    return tensor("encoder.3.norm", 412.0, "LayerNormalization", **{**made, **fields})


def fault(wrong: TensorCheck | None = None, **fields: Any) -> ModelFault:
    wrong = wrong or faulty_tensor()
    made: dict[str, Any] = {
        "blame": "runtime",
        "sample": 0,
        "level": "none",
        "tensor": wrong,
        "segment": wrong.segment,
        "source": 'File "net.py", line 41, in forward x = self.norm(x)',
        "evidence": (
            "0.8818 at [0, 3, 7, 1] where 0.880797078 is right, given what the node read: 412 times what rounding allows",
            "openvino is within every bound",
            "end to end logits is off by more than 16 spreads",
        ),
    }
    return ModelFault(node=wrong.node, op_type=wrong.op_type, **{**made, **fields})


def with_fault(wrong: TensorCheck | None = None, **fields: Any) -> RuntimeCheck:
    """A runtime that computes one layer wrongly without any optimization."""
    wrong = wrong or faulty_tensor()
    tensors = level("none").tensors
    made: dict[str, Any] = {
        "status": "not explained",
        "outputs": [output(spreads=380.0, decided_alike=0), output("boxes", 1.5, decisions=0, decided_alike=0)],
        "levels": [level("none", tensors=[*tensors[:6], wrong, *tensors[6:]]), level("extended"), level("all")],
        "fault": fault(wrong),
    }
    return runtime(**{**made, **fields})


def with_optimizer_fault(name: str = "ort-cpu@1.26") -> RuntimeCheck:
    """A runtime whose optimizer puts a fused layer wrong."""
    segment = tuple(f"encoder.3.{part}" for part in ("mean", "sub", "pow", "mean2", "norm"))
    wrong = faulty_tensor(segment=segment)
    evidence = (
        "without optimization (none) every node that was judged is within its bound",
        "without the optimization LayerNormFusion every segment is within its bound",
        "end to end rounding still hides it",
    )
    return runtime(
        name,
        facts={"onnxruntime": "1.26.0", "threads": "1", "cpu_capability": "AVX2"},
        status="not explained",
        levels=[level("none"), level("extended", tensors=[*level("extended").tensors, wrong])],
        fault=fault(wrong, blame="runtime:optimizer", level="extended", evidence=evidence),
    )


REFUSED = runtime(
    "openvino",
    status="failed",
    reason="RuntimeError: Check 'false' failed at src/frontends/onnx: com.acme.Fancy is not supported",
    outputs=[],
    levels=[],
)
ABSENT = RuntimeCheck(name="ort-cuda", status="unavailable", reason="no CUDA device")


def ill_conditioned() -> CheckResult:
    return check(
        runtime(outputs=[output(spreads=12.0)]),
        graph=[
            Conditioning(output="logits", sample=0, spread=0.8, magnitude=2.5, ill_conditioned=True),
            Conditioning(
                output="boxes",
                sample=0,
                spread=0.0,
                magnitude=1.6e5,
                overflows="Mul mul_3 gives 160,000, and f16 ends at 65,504",
            ),
        ],
    )


def all_kinds() -> CheckResult:
    """A check of several runtimes with everything that may be said."""
    unjudged = [
        Unjudged("fancy_0", "Fancy", "no error bound for com.acme Fancy"),
        Unjudged("fancy_1", "Fancy", "no error bound for com.acme Fancy"),
    ]
    lame = with_fault()
    first = lame.levels[0]
    lame = with_fault(
        levels=[
            level("none", tensors=first.tensors, unjudged=unjudged),
            level("extended", failure="crash: the worker was killed by SIGSEGV", tensors=[]),
            level("all", moved=("logits",)),
        ],
        unsteady=("boxes",),
        mutated=("image",),
    )
    return check(
        lame,
        with_optimizer_fault(),
        REFUSED,
        ABSENT,
        answered=("fancy_0",),
        notes=("the model has 3 outputs that nothing reads",),
        graph=ill_conditioned().graph,
    )


def hostile(name: str = HOSTILE) -> CheckResult:
    """A check in which every foreign text is `name`."""
    wrong = faulty_tensor(tensor=name, segment=(name, name))
    wrong = TensorCheck(**{**{f: getattr(wrong, f) for f in wrong.__struct_fields__}, "node": name, "op_type": name})
    bad = with_fault(
        wrong,
        name=name,
        facts={name: name},
        reason=name,
        outputs=[output(name, 380.0, reason=name), output(name, unjudged=name)],
        unsteady=(name,),
        mutated=(name,),
        fault=fault(wrong, evidence=(name,), source=name, level="none"),
        levels=[
            level("none", tensors=[wrong], unjudged=[Unjudged(name, name, name)], moved=(name,)),
            level(name, failure=name),
        ],
    )
    return check(
        bad,
        model=name,
        operators={name: 3},
        samples=[SampleFacts(origin=name, shapes={name: (1,)}, drawn={name: name})],
        graph=[Conditioning(output=name, sample=0, spread=1.0, magnitude=1.0, ill_conditioned=True, overflows=name)],
        weights=[Weight(name=name, shape=(1,), dtype=name, lowest=-INF, highest=float("nan"))],
        answered=(name,),
        notes=(name,),
    )


def large(nodes: int = 10_000) -> CheckResult:
    wrong = faulty_tensor()
    tensors = level("none", nodes).tensors
    tensors.insert(nodes // 2, wrong)
    levels = [level("none", tensors=tensors), level("extended", nodes), level("all", nodes)]
    weights = [
        Weight(name=f"block{i}.weight", shape=(64, 3, 3, 3), dtype="float32", lowest=-0.5 - i, highest=0.75)
        for i in range(nodes // 4)
    ]
    return check(with_fault(wrong, levels=levels), nodes=nodes, weights=weights)
