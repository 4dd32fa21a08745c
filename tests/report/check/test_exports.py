"""What came of every graph of a check, in the order in which it came."""

from __future__ import annotations

from made_check import check, runtime, with_fault

from actconform.checking.session import CheckedGraph, FailedExport
from actconform.report.check.exports import ExportCheck, collect_exports


def graph_of(result, exporter: str, folder: str) -> CheckedGraph:
    return CheckedGraph(result, None, (), (), exporter=exporter, folder=folder)


def test_each_graph_is_reported_before_the_next_is_checked_and_a_failed_export_is_kept():
    happened = []

    def graphs():
        for name, exporter in (("first", "an-exporter"), ("second", ""), ("third", "")):
            happened.append(f"checked {name}")
            yield graph_of(check(runtime()), exporter, name)
        yield FailedExport("another", "it does not take it")

    result = collect_exports("net:make", graphs(), lambda graph: happened.append(f"reported {graph.folder}"))
    assert happened == [f"{done} {name}" for name in ("first", "second", "third") for done in ("checked", "reported")]
    assert [(export.exporter, export.folder) for export in result.exports[:3]] == [
        ("an-exporter", "first"),
        ("", "second"),
        ("", "third"),
    ]
    assert result.exports[3] == ExportCheck(exporter="another", failure="it does not take it")
    assert result.source == "net:make"
    assert result.explained


def test_one_graph_that_is_not_explained_leaves_none_explained():
    results = [check(runtime()), check(with_fault())]
    graphs = [graph_of(result, "", str(place)) for place, result in enumerate(results)]
    assert not collect_exports("", graphs, lambda _: None).explained
