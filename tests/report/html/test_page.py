"""The page: one file, whose data comes back whole, in which nothing that a plugin says is markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import made
import pytest

from actconform.bench.results import FILE, write
from actconform.report.html import Html
from actconform.types import Profile, Verdict
from actconform.types.cause import Cause
from actconform.types.report import Point, Since, Trend

HOSTILE = "<script>alert(1)</script><!--</SCRIPT ]]> {{data}} \u2028 \\u003c & 'quoted' \x1b[31m \U0001f600 ä"
CASES_LIMIT = 15e6  # bytes of a page of 5,000 cases


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of each."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.comments = 0
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        self._inside = True

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.found[-1][2].append(data)

    def handle_comment(self, data):
        self.comments += 1

    def texts(self, tag):
        return ["".join(text) for name, _, text in self.found if name == tag]


def written(folder, report, **fields):
    reporter = Html()
    for name, value in fields.items():
        setattr(reporter, name, value)
    reporter.write(report, folder)
    assert [path.name for path in folder.iterdir() if path.suffix == ".html"] == ["index.html"]
    return (folder / "index.html").read_text(encoding="utf-8")


def data_of(page):
    return json.loads(Elements(page).texts("script")[0])


def profile(points=140):
    return Profile(first=-151, width=4, at=tuple(range(-points // 2, points // 2)), share=(0.123,) * points)


def case_of(data, number=0):
    """One case with its texts in place of their numbers, as far as a test asks."""
    case = data["cases"][number]
    return {**case, "i": [data["texts"][i] for i in case["i"]], "c": data["texts"][case["c"]]}


def test_hostile_text_comes_back_as_text_and_makes_no_element(tmp_path):
    finding = made.finding("tail", evidence=HOSTILE, deviation=HOSTILE, regime=HOSTILE)
    results = [
        made.result("relu/value/f32/torch", reason=HOSTILE, implementation=HOSTILE, findings=(finding,)),
        made.result(
            f"{HOSTILE.replace('/', '')}/value/f32/{HOSTILE.replace('/', '')}", Verdict.ERROR, export={HOSTILE: HOSTILE}
        ),
    ]
    report = made.report(*results, problems=(HOSTILE,))
    cause = Cause(id=HOSTILE, reason=HOSTILE, link=HOSTILE, since=HOSTILE, routes=("*",))
    (tmp_path / "selftest.json").write_text(HOSTILE)
    page = written(tmp_path, report, causes=[cause])
    plain = written(tmp_path, made.report(made.result()))
    hostile, harmless = Elements(page), Elements(plain)
    assert {tag for tag, *_ in hostile.found} - {"ul", "li"} == {tag for tag, *_ in harmless.found}
    assert HOSTILE.replace("\u2028", r"\u2028").replace("\x1b", r"\x1b") in hostile.texts("li")
    assert hostile.comments == harmless.comments == 0
    assert page.count("<script") == plain.count("<script") == 2
    data = data_of(page)
    shown = HOSTILE.replace("\u2028", r"\u2028").replace("\x1b", r"\x1b")  # nothing that steers a reader's screen
    assert shown in data["texts"]
    assert data["problems"] == [shown]
    assert case_of(data, 1)["i"][0] == shown.replace("/", "")


def test_only_the_pages_own_script_and_style_may_run(tmp_path):
    page = written(tmp_path, made.report(made.result()))
    elements = Elements(page)
    policy = next(a["content"] for tag, a, _ in elements.found if tag == "meta" and "http-equiv" in a)
    for kind, text in (("script", elements.texts("script")[1]), ("style", elements.texts("style")[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not {"src", "href"} & {name for _, attributes, _ in elements.found for name in attributes}
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|https\?|http-equiv", "", page)


def test_the_script_never_makes_markup_of_text():
    assets = files("actconform.report.html") / "assets"
    for asset in assets.iterdir():
        text = asset.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            asset.name
        )
        assert text.count("\n") <= 300, asset.name


def test_the_same_report_gives_the_same_bytes(tmp_path):
    report = made.report(
        *(made.result(f"{name}/value/f32/torch", findings=(made.finding(),)) for name in ("relu", "tanh"))
    )
    assert written(tmp_path, report) == written(tmp_path, report)


def test_numbers_that_json_has_not_come_through(tmp_path):
    finding = made.finding("inf", magnitude=float("inf"))
    measurement = made.measurement(float("nan"), profile=profile(4))
    data = data_of(written(tmp_path, made.report(made.result(findings=(finding,), measurements=(measurement,)))))
    assert data["cases"][0]["m"][0][4] == "nan"
    assert data["cases"][0]["f"][0][9] == "inf"
    assert data["cases"][0]["m"][0][8] == [-151, 4, [-2, -1, 0, 1], [0.123] * 4]


@pytest.mark.parametrize(
    ("state", "word", "fields"),
    [
        (0, "", {}),
        (1, "tail", {"findings": (made.finding(blame="convention", deviation="d"),)}),
        (1, "", {"findings": (made.finding("zero-sign", blame="convention", deviation="d"),)}),
        (
            2,
            "tail",
            {"findings": (made.finding(deviation="d"), made.finding("nan-made", blame="convention", deviation="d"))},
        ),
        (
            3,
            "scaled-error",
            {"findings": (made.finding(), made.finding("scaled-error"), made.finding("nan-lost", deviation="d"))},
        ),
        (4, "TIMEOUT", {"verdict": Verdict.TIMEOUT}),
        (5, "", {"verdict": Verdict.UNSUPPORTED}),
        (6, "", {"verdict": Verdict.UNAVAILABLE}),
    ],
)
def test_a_case_is_as_grave_as_the_screen_has_it(tmp_path, state, word, fields):
    case = case_of(data_of(written(tmp_path, made.report(made.result(**fields)))))
    assert (case["k"], case["c"]) == (state, word)


def test_severities_are_those_of_the_findings_gravest_first(tmp_path):
    known = {"deviation": "d", "regime": "ordinary"}
    findings = (made.finding(**known), made.finding("zero-sign", **known), made.finding("nan-made", **known))
    data = data_of(written(tmp_path, made.report(made.result(findings=findings, verdict=Verdict.XFAIL), made.result())))
    assert data["severities"] == [["critical", "▲"], ["major", "△"], ["minor", "◦"], ["convention", "◦"]]
    first, clean = data["cases"]
    assert (first["g"], [finding[11] for finding in first["f"]], clean["g"]) == (0, [0, 2, 3], 4)
    assert [data["texts"][finding[0]] for finding in first["f"]] == ["nan-made", "tail", "zero-sign"]


def test_each_finding_is_at_one_range_of_inputs(tmp_path):
    ends = {
        "ordinary": ("0x3f800000", "0x40000000"),
        "large": ("0x42000000", "0x42800000"),
        "special": ("0x7fc00000",) * 2,
    }
    findings = [made.finding("nan-made", *at, count=count) for count, at in enumerate(ends.values())]
    findings.append(made.finding("nan-made", regime="subnormal", count=3))
    data = data_of(written(tmp_path, made.report(made.result(findings=tuple(findings)))))
    ranges = {finding[8]: data["ranges"][finding[12]][0] for finding in data["cases"][0]["f"]}
    assert ranges == dict(enumerate([*ends, "subnormal"]))
    assert dict(data["ranges"])["ordinary"] == "|x| ≤ 20"


def test_the_line_of_a_case_and_since_when_are_there(tmp_path):
    result = made.result(findings=(made.finding(),))
    points = tuple(Point(f"2026-01-0{day}T00:00:00Z", 0.5 * day, Verdict.PASS) for day in (1, 2))
    trend = Trend(result.case, points, (Since("tail", "y", "tail", points[1].when, points[0].when),))
    data = data_of(written(tmp_path, made.report(result), trends={result.case: trend}))
    case = data["cases"][0]
    assert [point[1] for point in case["t"]] == [0.5, 1]
    assert (
        data["texts"][case["since"][0][3]]
        == f"since {points[1].when}, not yet on {points[0].when}; no fact changed between"
    )


def test_the_selftest_beside_the_report_is_shown_and_a_broken_one_named(tmp_path):
    report = made.report(made.result())
    assert data_of(written(tmp_path, report))["selftest"] is None
    one = {"fault": "f", "family": "x", "what": "w", "outcome": "caught", "wanted": "tail", "seen": ["tail"]}
    workload = {"schema": 1, "detections": [one], "false_alarms": [], "healthy": 3, "seconds": 1.0, "problems": []}
    (tmp_path / "selftest.json").write_text(json.dumps(workload))
    assert data_of(written(tmp_path, report))["selftest"]["detections"] == [one]
    (tmp_path / "selftest.json").write_text('{"schema": 1')
    assert "selftest.json is not what" in data_of(written(tmp_path, report))["selftest"]["error"]


def test_the_throughput_beside_the_report_is_shown_and_a_broken_one_named(tmp_path, timed):
    report = made.report(made.result())
    assert data_of(written(tmp_path, report))["throughput"] is None
    write(tmp_path / FILE, timed({"torch": 1e-6, "keras": 4e-6}, noise=0.0))
    (chart,) = data_of(written(tmp_path, report))["throughput"]["charts"]
    assert (chart["subject"], chart["size"], chart["unit"]) == ("relu", "1K", "elements/s")
    route, *rates, mark, words = chart["rows"][1]
    assert (route, mark, rates) == ("keras", "", [pytest.approx(256e6)] * 3)
    assert "4.00 µs a call" in words
    (tmp_path / FILE).write_text('{"schema": 1')
    assert "throughput.json: not what" in data_of(written(tmp_path, report))["throughput"]["error"]


def test_five_thousand_cases_stay_under_the_limit(tmp_path):
    regimes = ("ordinary", "edge", "tail", "huge", "subnormal", "kink", "hard", "special")

    def case(number):
        # as the fullest of a real run: eight regimes, a hundred points between them and more, several findings
        measurements = tuple(
            made.measurement(
                1.2345678 + number / 7, regime=regime, n=3073, histogram=(1, 22, 333) * 12, profile=profile(18)
            )
            for regime in regimes
        )
        findings = tuple(
            made.finding(regime=r, evidence=f"at x={number} {r} " * 4, deviation="known") for r in regimes[: number % 6]
        )
        return made.result(
            f"kernel-{number // 20}/value/f32/route-{number % 20}+ort-cpu", findings=findings, measurements=measurements
        )

    page = written(tmp_path, made.report(*map(case, range(5000))))
    assert len(data_of(page)["cases"]) == 5000
    assert len(page.encode()) < CASES_LIMIT
