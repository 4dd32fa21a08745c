"""The jax backend's facts, in processes of their own where the environment decides; the plugin's exporter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from actconform.machine.cpu import cpu_capability
from actconform.plugin.loader import load_plugins
from actconform_jax import backend as module
from actconform_jax import plugin

jax = pytest.importorskip("jax")


def facts_under(**environment: str) -> dict[str, str]:
    program = "import json; from actconform_jax import JaxBackend; print(json.dumps(JaxBackend().facts()))"
    known = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**known, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_facts_are_words_that_could_explain_a_number() -> None:
    facts = facts_under(ACTCONFORM_THREADS="1")
    assert facts["jax"] == jax.__version__
    assert facts["numpy"] == np.__version__
    assert (facts["device"], facts["x64"], facts["jit"], facts["threads"]) == ("cpu", "off", "on", "1")
    assert facts["matmul_precision"] == "default"
    assert facts["subnormals"] in ("kept", "flushed")
    assert "--xla_cpu_multi_thread_eigen=false" in facts["xla_flags"]
    assert all(type(word) is str for word in facts.values())


def test_a_lowered_instruction_set_and_more_threads_are_told() -> None:
    facts = facts_under(ACTCONFORM_THREADS="2", XLA_FLAGS="--xla_cpu_max_isa=SSE4_2")
    assert facts["cpu_capability"] == cpu_capability("SSE")
    assert facts["threads"] == "2"
    assert facts["xla_flags"] == "--xla_cpu_max_isa=SSE4_2"


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        ("", "AVX512"),
        ("--xla_cpu_max_isa=AVX2", "AVX2"),
        ("--xla_cpu_max_isa=AVX", "AVX"),
        ("--xla_cpu_max_isa=AVX512_BF16", "AVX512"),
        ("--other --xla_cpu_max_isa=AVX512 --xla_cpu_max_isa=AVX2", "AVX2"),
    ],
)
def test_the_capability_is_the_lower_of_processor_and_flag(
    flags: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert module._capability() == cpu_capability(allowed)


def test_the_plugin_gives_an_exporter_of_its_backend() -> None:
    assert load_plugins([plugin], []).exporters["jax2onnx"].source == "jax"
