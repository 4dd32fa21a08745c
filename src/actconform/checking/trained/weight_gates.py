"""The gates of recurrent layers, which ONNX has in another order than torch (LSTM, GRU) and Keras (LSTM)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actconform.checking.trained.weight_ledger import Ledger

RECURRENT = ("LSTM", "GRU", "DynamicQuantizeLSTM")


def may_have_gates(ledger: Ledger, parameter: str) -> bool:
    """Whether a weight may be of a recurrent layer that the graph computes by one node."""
    names = (ledger.kind_of.get(parameter, "RNN") + parameter).upper()
    named = any(word in names for word in ("LSTM", "GRU", "RNN", "BIDIRECTIONAL"))
    return named and any(node.proto.op_type in RECURRENT for node in ledger.graph.nodes)


def lacks_reordering(ledger: Ledger, parameter: str, initializer: str) -> str:
    """Return what is wrong where a recurrent node reads gates in the order of the framework; "" where all is right."""
    kind = ledger.kind_of.get(parameter, "")
    framework, layer = kind.partition(".")[0], kind.rpartition(".")[2]
    readers = [node.proto.op_type for node in ledger.readers[initializer] if node.proto.op_type in RECURRENT]
    if readers and (("LSTM" in layer and framework in {"torch", "keras"}) or ("GRU" in layer and framework == "torch")):
        return f"its gates are not in the order in which {readers[0]} of ONNX reads them"
    return ""
