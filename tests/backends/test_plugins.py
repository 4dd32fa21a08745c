"""What each plugin gives: its backends, a register that reads, facts in words, and what to install where its packages are missing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from kernel_truth import KERNELS
from missing_package import without

from actconform import Case
from actconform.plugin.loader import load_plugins
from actconform.verdict.causes.check import check_formulas

# By plugin its backends, and whether they run only where they are asked for.
BACKENDS = {
    "keras": {"keras": False, "keras-gpu": False, "keras-xla": True, "keras-jax": True, "keras-torch": True},
    "torch": {"torch": False, "torch-compile": True, "torch-cuda": False},
    "onnxruntime": {"ort-cpu": False, "ort-cuda": False},
    "jax": {"jax": True},
    "openvino": {"openvino": True},
    "reference": {"onnx-reference": True, "onnx-reference-float64": True},
}
# A backend, the plugin that gives it, and a package that it cannot be without.
NEEDS = [
    ("keras", "keras", "keras"),
    ("keras", "keras", "tensorflow"),
    ("torch", "torch", "torch"),
    ("jax", "jax", "jax"),
    ("jax", "jax", "jaxlib"),
    ("ort-cpu", "onnxruntime", "onnxruntime"),
    ("ort-cuda", "onnxruntime", "onnxruntime"),
    ("openvino", "openvino", "openvino"),
]
FACTS = """
from actconform import Unavailable
from actconform.plugin.loader import load_plugins
try:
    load_plugins().backends[{backend!r}]().facts()
except Unavailable as missing:
    print(missing)
"""

each_backend = pytest.mark.parametrize("name", ["keras", "torch", "jax", "ort-cpu", "openvino", "onnx-reference"])


@pytest.mark.parametrize("plugin", BACKENDS)
def test_a_plugin_gives_its_backends_and_a_register_that_reads(plugin):
    module = importlib.import_module(f"actconform_{plugin}")
    catalog = load_plugins([getattr(module, "plugin", module)], [])
    assert not catalog.broken
    assert {name: backend.extra for name, backend in catalog.backends.items()} == BACKENDS[plugin]
    assert catalog.register.causes
    check_formulas(catalog.register, KERNELS)


@each_backend
def test_facts_are_words_that_could_explain_a_number(backend_of, name):
    facts = backend_of(name).facts()
    assert facts["subnormals"] in ("kept", "flushed")
    assert all(type(word) is str and word for word in facts.values())
    if name != "onnx-reference":
        assert facts["device"] == "cpu"
        assert facts["threads"].isdigit()
        assert facts["cpu_capability"]


@pytest.mark.parametrize("name", ["keras", "torch", "jax"])
def test_a_dtype_that_is_not_run_is_no_and_a_model_of_a_plugin_is_tried(backend_of, name):
    backend = backend_of(name)
    for subject in ("relu", "a-model-of-a-plugin"):
        assert backend.supports(Case(subject, "value", "f32", name)).yes
    support = backend.supports(Case("relu", "value", "f64", name))
    assert (support.yes, support.reason) == (False, f"{name} runs f32, f16, bf16 here, not f64")


@pytest.mark.parametrize(("backend", "plugin", "package"), NEEDS)
def test_without_its_packages_a_backend_is_unavailable_and_says_what_to_install(backend, plugin, package):
    # in a process of its own: frameworks do not bear being imported twice
    command = [sys.executable, "-c", without(package) + FACTS.format(backend=backend)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    missing = f"{package} is not installed: pip install "
    needed = f"{plugin} .* is installed, but cannot be imported: .*{package}"  # by another package, in whose words it is said
    assert re.match(f"{missing}|{needed}", done.stdout), done.stdout
