"""The page of a check in a real browser, as a person uses it."""

from __future__ import annotations

import made_check
import pytest

from actconform.report.check.page import write_page


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    results = {
        "all": made_check.all_kinds(),
        "healthy": made_check.check(),
        "hostile": made_check.hostile(),
        "long": made_check.hostile(made_check.LONG),
        "large": made_check.large(10_000),
        "nothing": made_check.check(made_check.ABSENT, weights=[]),
    }
    folder = tmp_path_factory.mktemp("checks")
    for name, result in results.items():
        (folder / name).mkdir()
        write_page(result, folder / name)
    return {name: (folder / name / "index.html").as_uri() for name in results}


@pytest.fixture
def opened(browse, addresses):
    def opening(name="all", hash_="", **options):
        return browse(addresses[name] + hash_, **options)

    return opening


def layers(page):
    page.wait_for_function("document.getElementById('layer-count').textContent")
    return page.locator("#layers tbody a.name").all_text_contents()


def test_the_first_bad_layer_and_whose_fault_it_is_stand_on_top(opened):
    page = opened()
    assert page.inner_text("h1") == "✗ Not explained by rounding"
    assert page.inner_text("main h2 >> nth=0").startswith(
        "encoder.3.norm (LayerNormalization) on ort-cpu is the first layer"
    )
    card = page.inner_text(".card >> nth=0")
    for words in (
        "412 times its bound",
        "runtime: the runtime's own computation",
        "openvino is within every bound",
        "net.py",
    ):
        assert words in card
    assert "2 nodes not judged (Fancy): no error bound for com.acme Fancy" in card
    assert "runtime:optimizer" in page.inner_text(".card >> nth=1")
    assert "com.acme.Fancy is not supported" in page.inner_text(".card >> nth=2")
    assert "logits (sample 1) is ill-conditioned" in page.inner_text(".card.warn")


def test_a_healthy_model_says_so_and_how_sharp_the_test_was(opened):
    page = opened("healthy")
    assert page.inner_text("h1") == "✓ Explained by rounding"
    assert page.inner_text("#verdict table tbody tr >> nth=2").split("\t") == ["all", "4", "4e-5", "block0.conv_0", "–"]
    assert len(layers(page)) == 12


def test_layers_stand_in_the_order_of_the_graph_and_are_searched_and_filtered(opened):
    page = opened()
    assert layers(page)[5:8] == ["block0.softmax_5", "encoder.3.norm", "block0.gemm_6"]
    page.fill("#by-text", "conv encoder")
    assert layers(page) == []
    page.fill("#by-text", "Conv block1")
    assert layers(page) == ["block1.conv_8"]
    page.fill("#by-text", "")
    page.select_option("#by-op", "Softmax")
    assert layers(page) == ["block0.softmax_5"]
    page.select_option("#by-op", "")
    page.select_option("#by-run", "ort-cpu@1.26 · extended")
    assert layers(page)[3] == "encoder.3.norm"  # where the graph has it
    page.select_option("#by-run", "")
    page.check("#over")
    assert layers(page) == ["encoder.3.norm"] * 2
    page.uncheck("#over")
    page.select_option("#by-sort", "ratio")
    assert layers(page)[:2] == ["encoder.3.norm"] * 2


def test_a_layer_shows_truth_noise_and_what_came(opened):
    page = opened()
    page.click("#verdict a.name >> nth=0")
    page.wait_for_selector("h2:has-text('encoder.3.norm')")
    shown = page.inner_text("main")
    for words in (
        "0.880797078",
        "± 2.5e-6",
        "0.8818",
        "412×",
        "at [0, 3, 7, 1]",
        "-2.75 to 6.25",
        "3e-6 of the largest value",
    ):
        assert words in shown
    assert page.locator("svg .band").count() == 1
    assert page.locator("svg rect.bar").count() == 12
    assert page.inner_text("main table tbody tr").startswith("ort-cpu@1.26 · extended")
    page.click("main table tbody a")
    page.wait_for_selector("dt:has-text('5 nodes judged together')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#layers")


def test_of_ten_thousand_layers_those_in_view_are_in_the_page_and_keys_lead_on(opened):
    page = opened("large")
    assert len(layers(page)) < 60
    assert page.get_attribute("#layers table", "aria-rowcount") == "10002"
    page.locator("#layers tbody a").first.focus()
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').getAttribute('aria-rowindex')") == "42"
    box = page.locator("#layers .long-box")
    box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    page.wait_for_selector("#layers tbody a:has-text('block1249.sigmoid_9999')")
    page.keyboard.press("/")
    page.keyboard.type("encoder")
    assert layers(page) == ["encoder.3.norm"]
    page.locator("#layers tbody a").press("Enter")
    page.wait_for_selector("article h2")
    page.click("text=← all layers")
    page.wait_for_selector("#layers tbody a")
    page.wait_for_function("document.activeElement.textContent === 'encoder.3.norm'")


@pytest.mark.parametrize("name", ["hostile", "long"])
def test_foreign_names_are_text_and_stay_in_the_page(opened, name):
    page = opened(name, width=390)
    assert page.evaluate("window.harm") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#verdict a.name")
    page.wait_for_selector("article h2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    whole = "\\u202egnol" if name == "hostile" else made_check.LONG
    assert whole in page.inner_text("h2")


def test_without_any_answer_the_page_says_that_nothing_was_compared(opened):
    page = opened("nothing")
    assert page.inner_text("h1") == "✗ Nothing was compared"
    assert "No runtime gave an answer" in page.inner_text("main h2 >> nth=0")
    assert "no CUDA device" in page.inner_text(".card")
    assert not page.locator("#layers").count()


@pytest.mark.parametrize("link", ["#layer=99999", "#layer=x", "#layer="])
def test_a_link_to_nothing_says_so(opened, link):
    assert "Not in this check" in opened("all", link).inner_text("main")


@pytest.mark.parametrize("hash_", ["", "#layer=6"])
def test_a_phone_shows_it(opened, too_small, hash_):
    page = opened("all", hash_, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert too_small(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "hash_"), [("all", ""), ("all", "#layer=6")])
def test_axe_finds_no_serious_fault(opened, serious_faults, name, hash_, scheme):
    page = opened(name, hash_, scheme=scheme, bypass_csp=True)
    if not hash_:
        layers(page)
    assert serious_faults(page) == []
