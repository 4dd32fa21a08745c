"""A runtime in C++ on the header that is shipped: built here, served and prepared, green on kernels, and its fault is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from actconform.workers import serve
from actconform.workers.serve.frames import npy_bytes

HERE = Path(__file__).parent
HEADER = Path(serve.__file__).with_name("actconform_serve.h")
COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="NO C++ COMPILER: the header is not tested here")

CONVERSIONS = """
#include "actconform_serve.h"
#include <cstdio>
#include <fstream>
#include <iterator>
int main(int, char** words) {
  std::ifstream file(words[1], std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  actconform::Tensor tensor = actconform::read_npy(content);
  if (std::string(words[2]) == "copy") {
    const std::string copy = actconform::write_npy(tensor);
    std::fwrite(copy.data(), 1, copy.size(), stdout);
    return 0;
  }
  for (std::size_t i = 0; i < tensor.size(); ++i) {
    const std::uint16_t numbers[] = {actconform::float_to_float16(tensor.values<float>()[i]), actconform::float_to_bfloat16(tensor.values<float>()[i])};
    const float back[] = {actconform::float16_to_float(numbers[0]), actconform::bfloat16_to_float(numbers[1])};
    std::fwrite(numbers, sizeof numbers, 1, stdout);
    std::fwrite(back, sizeof back, 1, stdout);
  }
}
"""


def build(source: Path, target: Path) -> Path:
    words = [COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", HEADER.parent, source, "-o", target]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return build(HERE / "runtime.cpp", tmp_path_factory.mktemp("cpp") / "rt")


@pytest.fixture(scope="module")
def conversions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conversions")
    (folder / "conversions.cpp").write_text(CONVERSIONS)
    return build(folder / "conversions.cpp", folder / "conversions")


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 0, 4), (2, 1, 3, 1)])
def test_every_dtype_and_shape_is_read_and_written(conversions, tmp_path, dtype, shape):
    content = npy_bytes((np.arange(np.prod(shape)) % 5).reshape(shape).astype(dtype))
    (tmp_path / "x.npy").write_bytes(content)
    done = subprocess.run([conversions, tmp_path / "x.npy", "copy"], capture_output=True, check=True)
    assert done.stdout == content


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00\xff\xff{}", npy_bytes(np.ones(3, "f4"))[:-1], npy_bytes(np.ones(3, "c8"))]
)
def test_what_is_no_tensor_is_not_read_beyond_its_end(conversions, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    assert subprocess.run([conversions, tmp_path / "x.npy", "copy"], capture_output=True, check=False).returncode != 0


def test_sixteen_bits_are_rounded_as_numpy_and_ml_dtypes_round(conversions, tmp_path):
    halves = np.arange(1 << 16, dtype=np.uint16)
    exact = np.concatenate([halves.view(np.float16).astype(np.float32), halves.view(ml_dtypes.bfloat16).astype("f4")])
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint64).astype(np.uint32)
    half = np.float32(2**-25)
    with np.errstate(invalid="ignore", over="ignore"):
        middle = (exact[:-1].astype(np.float64) + exact[1:]) / 2
        x = np.concatenate(
            [exact, middle.astype("f4"), bits.view(np.float32), [half, np.nextafter(half, np.float32(1))]]
        )
        expected = np.rec.fromarrays(
            [x.astype(np.float16).view(np.uint16), x.astype(ml_dtypes.bfloat16).view(np.uint16)], names="f16,bf16"
        )
    x = x.astype(np.float32)
    (tmp_path / "x.npy").write_bytes(npy_bytes(x))
    done = subprocess.run([conversions, tmp_path / "x.npy", "convert"], capture_output=True, check=True)
    taken = np.frombuffer(done.stdout, "u2,u2,f4,f4")
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(taken["f0"][numbers], expected["f16"][numbers])
    np.testing.assert_array_equal(taken["f1"][numbers], expected["bf16"][numbers])
    np.testing.assert_array_equal(taken["f2"], taken["f0"].view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(taken["f3"], taken["f1"].view(ml_dtypes.bfloat16).astype(np.float32))
    assert np.isnan(taken["f2"][~numbers]).all()
    assert np.isnan(taken["f3"][~numbers]).all()


def run_of(folder: Path, built: Path, arguments: list[str], fault: str = "") -> tuple[int, list[dict]]:
    (folder / "actconform.toml").write_text(
        f"[backends.served]\nserve = '\"{built}\" --serve{fault}'\n"
        f"[backends.batch]\nprepare = '\"{built}\" --compile {{model}} {{artifact}}'\ncommand = '\"{built}\" {{artifact}} {{inputs}} {{outputs}}{fault}'\n"
    )
    words = [sys.executable, "-m", "actconform", "run", *arguments, "--out", "out"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (folder / "out" / "report.json").exists(), done.stdout + done.stderr
    return done.returncode, json.loads((folder / "out" / "report.json").read_text())["results"]


def routes(*columns: str) -> list[str]:
    return [word for column in columns for word in ("--route", f"authored+{column}")]


def test_kernels_are_green_served_and_prepared(built, tmp_path):
    subjects = ["elu/value/f32", "softmax/gradient/f32", "softsign/value/bf16", "tanh/value/f16"]
    subjects = [f"{subject}/authored+served" for subject in subjects] + ["elu/value/f32/authored+batch"]
    refused = [f"mish/value/f32/authored+{column}" for column in ("served", "batch")]
    code, results = run_of(tmp_path, built, [*subjects, *refused, *routes("served", "batch")])
    verdicts = {result["case"]: result["verdict"] for result in results}
    assert verdicts == dict.fromkeys(subjects, "PASS") | dict.fromkeys(refused, "UNSUPPORTED")
    assert [result["reason"] for result in results if result["case"] in refused] == ["no operator Mish"] * 2
    assert code == 0


def test_a_fault_of_the_runtime_is_found_and_blamed_on_it(built, tmp_path):
    code, (result,) = run_of(tmp_path, built, ["elu/value/f32/authored+served", *routes("served")], fault=" --fault")
    assert (code, result["verdict"]) == (1, "FAIL")
    tails = [finding for finding in result["findings"] if finding["class"] == "tail"]
    assert tails
    assert {finding["blame"] for finding in tails} == {"runtime"}


def test_the_header_is_shipped_with_the_package():
    done = subprocess.run(
        [sys.executable, "-m", "actconform.workers.serve"], capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip(), "actconform_serve.h").is_file()
