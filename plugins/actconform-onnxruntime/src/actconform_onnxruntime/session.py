"""Sessions of ONNX Runtime, alike for all execution providers."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actconform import Unsupported
from actconform.plugin.framework import thread_count

if TYPE_CHECKING:
    from collections.abc import Iterator

# What `level` may be, the one that optimizes nothing first.
LEVELS = {
    "disabled": "DISABLE_ALL",
    "basic": "ENABLE_BASIC",
    "extended": "ENABLE_EXTENDED",
    "all": "ENABLE_ALL",
}
# The graph transformers for the CPU; ONNX Runtime lists them nowhere, unknown names change nothing.
OPTIMIZERS = tuple(
    """
    ConstantFolding CommonSubexpressionElimination EliminateIdentity CastElimination CastChainElimination NotWhereFusion
    Level1_RuleBasedTransformer Level2_RuleBasedTransformer GeluFusionL1 GeluFusionL2 FastGeluFusion QuickGeluFusion
    BiasGeluFusion LayerNormFusionL1 LayerNormFusionL2 SimplifiedLayerNormFusion SkipLayerNormFusion
    BiasSkipLayerNormFusion EmbedLayerNormFusion AttentionFusion GroupQueryAttentionFusion
    GroupQueryAttentionPreNormFusion BiasSoftmaxFusion BiasDropoutFusion MatMulAddFusion MatMul_BatchNormalization_Fusion
    MatmulTransposeFusion MatMulScaleFusion MatMulActivationFusion MatMulNBitsFusion MatMulNBitsMlpFusion
    MatMulNBitsQkvFusion MatMulIntegerToFloatFusion DynamicQuantizeMatMulFusion GemmActivationFusion
    ConvActivationFusion ConvAddActivationFusion ReshapeFusion PadFusion GatherToSliceFusion GatherSliceToSplitFusion
    SliceConcatToSpaceToDepthFusion QDQPropagationTransformer QDQSelectorActionTransformer QDQS8ToU8Transformer
    QDQFinalCleanupTransformer DoubleQDQPairsRemover WeightBiasQuantization EnsureUniqueDQForNodeUnit
    Avx2WeightS8ToU8Transformer TransposeOptimizer NchwcTransformer NhwcTransformer InsertCastTransformer
    RemoveDuplicateCastTransformer FuseFp16InitializerToFp32NodeTransformer
    """.split()  # noqa: SIM905  a list to read
)

_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : |This is an invalid model\. |Load model from \S* ?failed: ?|Failed to load model with error: "
    r"| node with name '\w*'|/\S+\.(?:cc|h):\d+ .*(?:\)| was false\.) (?=[A-Z])"  # the last is a place in its source
)
NO_SUCH_TYPE = "can't be converted to MLDataType"  # integers of 2 and 4 bits
_TOO_NEW = re.compile(r"max supported (IR version): (\d+)|official support for domain ai\.onnx is till (opset) (\d+)")
STANDARD = ("", "ai.onnx")


def options() -> Any:
    """Return SessionOptions as a user has them, but silent, and with a fixed number of threads that sleep in waiting.

    The optimization level stays at its default, all; where the nodes go is recorded.
    """
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = thread_count()
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 4
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return chosen


def refusals() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises where it will not load a graph; a damaged file raises other types."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented  # noqa: A004

    return NotImplemented, InvalidGraph, Fail


@contextmanager
def refused_late() -> Iterator[None]:
    """Raise `Unsupported`, in ONNX Runtime's words, where a run says that something is unsupported; pass on all else."""
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    try:
        yield
    except InvalidArgument as error:
        if "Unsupported" in str(error) or "not supported" in str(error):
            raise Unsupported(words(error)) from error
        raise
    except RuntimeError as error:
        if NO_SUCH_TYPE in str(error):
            raise Unsupported(
                f"takes tensors of this type from nobody who calls it in Python: {words(error)}"
            ) from error
        raise


def words(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message without codes, names of nodes and places in its source.

    "NOT_IMPLEMENTED: Could not find an implementation for Elu(22)"
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _NOISE.sub("", lines[0]).replace(" : ", ": ", 1).strip()


def read_graph(model: bytes | str) -> Any:
    """Return the ModelProto of bytes or of a file, without data that lie in files beside it."""
    import onnx

    if isinstance(model, bytes):
        return onnx.load_model_from_string(model)
    return onnx.load_model(model, load_external_data=False)


def _too_new(error: Exception, model: bytes | str) -> str:
    """Return by what a graph is newer than ONNX Runtime, where that is why it is refused, or ""; itself it does not say by what.

    "the graph is of opset 24 (newest operator: Swish-24) and IR version 12; onnxruntime 1.19.0 takes IR version 10 at most"
    """
    import onnx
    import onnxruntime

    limit = _TOO_NEW.search(str(error))
    if not limit:
        return ""
    what, most = filter(None, limit.groups())
    proto = read_graph(model)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=0)
    since = {
        node.op_type: onnx.defs.get_schema(node.op_type, opset).since_version
        for node in proto.graph.node
        if node.domain in STANDARD and onnx.defs.has(node.op_type, max_inclusive_version=opset)
    }
    last = max(since.values(), default=0)
    newest = [name for name, version in since.items() if version == last]
    added = [name for name in newest if not onnx.defs.has(name, max_inclusive_version=last - 1)]
    names = ", ".join(f"{name}-{last}" for name in added or newest) or "none of the standard"
    graph = f"the graph is of opset {opset} (newest operator: {names}) and IR version {proto.ir_version}"
    return f"{graph}; onnxruntime {onnxruntime.__version__} takes {what} {most} at most"


def load(model: bytes | str, provider: str, level: str = "", optimized: str = "") -> Any:
    """Return a session of `model`, bytes or the path of a file, on `provider`; raise `Unsupported`, in ONNX Runtime's words, where
    it refuses.

    `level` is one of LEVELS, or "without NAME, NAME" with some of OPTIMIZERS, or empty for the default, all. The optimized graph is
    written to the path `optimized`, where one is given, and its large tensors to a file beside it.

    ONNX Runtime's own retreat of a whole session to the CPU, on creation and on every run, is off: it would answer in
    another's name. Single nodes that `provider` does not take go to the CPU: the record tells which.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    chosen = options()
    extra: dict[str, Any] = {}
    if level.startswith("without "):
        extra["disabled_optimizers"] = level.removeprefix("without ").split(", ")
    elif level:
        chosen.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{LEVELS[level]}")
    if optimized:
        chosen.optimized_model_filepath = optimized
        chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.data")
    try:
        return onnxruntime.InferenceSession(model, chosen, providers=[provider], enable_fallback=0, **extra)
    except refusals() as error:
        raise Unsupported(_too_new(error, model) or words(error)) from error
    except InvalidArgument as error:  # so say releases up to 1.20 that a graph is too new
        if reason := _too_new(error, model):
            raise Unsupported(reason) from error
        raise
