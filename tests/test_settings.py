"""actconform.toml: what is in it is meant, so what is not understood is refused with file, key and mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actconform.errors import UsageError
from actconform.settings import BackendConfig, Config, read_config

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str | bytes, name: str = "settings.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(folder: Path, text: str | bytes) -> str:
    path = written(folder, text)
    with pytest.raises(UsageError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_without_a_file_the_settings_are_the_defaults(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config() == Config()
    assert Config().threads == 1
    assert Config().require is None


def test_the_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "threads = 2", "actconform.toml")
    assert read_config() == Config(threads=2, path="actconform.toml")


@pytest.mark.parametrize("name", ["actconform.toml", "pyproject.toml"])
def test_the_nearest_file_upwards_is_read(name: str, tmp_path: Path, monkeypatch):
    text = "threads = 2\ndeviations = ['local.toml']\n"
    written(
        tmp_path, text if name == "actconform.toml" else f"[project]\nname = 'net'\n[tool.actconform]\n{text}", name
    )
    written(tmp_path, "timeout = 3.0", "settings.toml")
    inner = tmp_path / "tests" / "deep"
    inner.mkdir(parents=True)
    written(inner, "[tool.ruff]\nline-length = 88", "pyproject.toml")
    written(inner.parent, b"\xff", "pyproject.toml")
    monkeypatch.chdir(inner)
    assert read_config() == Config(threads=2, path=str(tmp_path / name), deviations=(str(tmp_path / "local.toml"),))
    written(inner.parent, "threads = 3", "actconform.toml")
    assert read_config().threads == 3


def test_of_both_files_in_a_folder_the_one_of_its_own_counts(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[tool.actconform]\nthreads = 2", "pyproject.toml")
    assert read_config() == Config(threads=2, path="pyproject.toml")
    written(tmp_path, "", "actconform.toml")
    assert read_config() == Config(path="actconform.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.actconform]\nthread = 2", "unknown key 'thread'"),
        ("[tool.actconform]\nthreads =", "not valid TOML"),
        ("[tool]\nactconform = 3", "has no table [tool.actconform]"),
    ],
)
def test_a_table_of_a_project_that_is_wrong_is_refused_in_words(text: str, words: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, text, "pyproject.toml")
    with pytest.raises(UsageError) as error:
        read_config()
    assert str(error.value).startswith("pyproject.toml: ")
    assert words in str(error.value)


def test_a_project_that_is_named_must_have_the_table(tmp_path: Path):
    path = written(tmp_path, "[tool.ruff]", "pyproject.toml")
    with pytest.raises(UsageError, match=r"pyproject\.toml: has no table \[tool\.actconform\]: wanted the keys"):
        read_config(path)


def test_every_setting_is_read(tmp_path: Path):
    path = written(
        tmp_path,
        """
        threads = 2
        timeout = 30
        out = "results"
        require = ["torch"]
        deviations = ["local.toml"]
        [backends.torch]
        python = "/opt/other/bin/python"
        env = { ONEDNN_MAX_CPU_ISA = "AVX2" }
        [backends.ort-cpu]
        """,
    )
    assert read_config(path) == Config(
        threads=2,
        timeout=30.0,
        out="results",
        require=("torch",),
        deviations=(str(tmp_path / "local.toml"),),
        path=str(path),
        backends={
            "torch": BackendConfig(python="/opt/other/bin/python", env={"ONEDNN_MAX_CPU_ISA": "AVX2"}),
            "ort-cpu": BackendConfig(),
        },
    )


def test_an_empty_file_is_the_defaults(tmp_path: Path):
    path = written(tmp_path, "")
    assert read_config(path) == Config(path=str(path))


def test_where_the_settings_lie_is_no_setting(tmp_path: Path):
    assert "unknown key 'path'" in refused(tmp_path, 'path = "elsewhere.toml"')


def test_a_command_and_requirements_are_read(tmp_path: Path):
    path = written(
        tmp_path,
        """
        [backends.myrt]
        command = "./myrt {model} {inputs} {outputs}"
        tensors = "pb"
        version = "./myrt --version"
        env = { LEVEL = "2" }
        [backends."ort-cpu@1.30"]
        requirements = ["onnxruntime==1.30.0", "numpy<3"]
        """,
    )
    assert read_config(path).backends == {
        "myrt": BackendConfig(
            command="./myrt {model} {inputs} {outputs}", tensors="pb", version="./myrt --version", env={"LEVEL": "2"}
        ),
        "ort-cpu@1.30": BackendConfig(requirements=("onnxruntime==1.30.0", "numpy<3")),
    }


def test_runtimes_that_compile_or_serve_are_read(tmp_path: Path):
    prepare, command = "./rtc {model} -o {artifact}", "./rt {artifact} {model} {inputs} {outputs}"
    path = written(
        tmp_path,
        f"""
        [backends.batch]
        prepare = "{prepare}"
        command = "{command}"
        [backends.served]
        prepare = "{prepare}"
        serve = "./rt --serve"
        """,
    )
    assert read_config(path).backends == {
        "batch": BackendConfig(prepare=prepare, command=command),
        "served": BackendConfig(prepare=prepare, serve="./rt --serve"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("command = './rt {model} {inputs}'", "wanted {model} and {inputs} and {outputs}, as in './myrt"),
        ("command = './rt {model} {inputs} {outputs} {level}'", "wanted {model} and {inputs} and {outputs}"),
        ("command = './rt {model!r} {inputs} {outputs}'", "wanted {model} and {inputs} and {outputs}"),
        ("command = './rt {model} {inputs} {outputs'", "cannot be read"),
        ("command = './rt \"{model} {inputs} {outputs}'", "cannot be read: No closing quotation"),
        ("command = ''", "command is empty"),
        ("command = './rt {model} {inputs} {outputs}'\nversion = './rt {model}'", "wanted no word in braces"),
        ("command = './rt {model} {inputs} {outputs}'\nversion = ' '", "version is empty"),
        ("command = './rt {model} {inputs} {outputs}'\npython = 'python3'", "command with python or requirements"),
        ("command = './rt {model} {inputs} {outputs}'\nrequirements = ['a']", "command with python or requirements"),
        ("command = './rt {model} {inputs} {outputs}'\ntensors = 'csv'", "Invalid enum value 'csv'"),
        ("command = ['./rt', '{model}']", "Expected `str | null`, got `array`"),
        ("prepare = './rtc {model} {artifact}'", "prepare without a command: wanted command = './myrt {artifact}"),
        (
            "prepare = './rtc {model}'\nserve = './rt'",
            "prepare = './rtc {model}': wanted {model} and {artifact}, as in",
        ),
        (
            "prepare = './rtc {model} {artefact}'\ncommand = './rt {artifact} {inputs} {outputs}'",
            "wanted {model} and {artifact}, as in './myrtc {model} -o {artifact}'; there is no {artefact} here",
        ),
        (
            "prepare = './rtc {model} {artifact}'\ncommand = './rt {model} {inputs} {outputs}'",
            "wanted {artifact} and {inputs} and {outputs}, as in './myrt {artifact} {inputs} {outputs}'",
        ),
        ("command = './rt {artifact} {inputs} {outputs}'", "there is no {artifact} here"),
        ("prepare = ''\nserve = './rt'", "prepare is empty"),
        ("serve = './rt {model}'", "wanted no word in braces; the path of each graph comes in a message"),
        ("serve = './rt'\ncommand = './rt {model} {inputs} {outputs}'", "command and serve: a process that serves"),
        ("serve = './rt'\ntensors = 'npy'", "serve and tensors: its messages hold .npy"),
        ("serve = './rt'\npython = 'python3'", "serve with python or requirements"),
        ("serv = './rt'", "did you mean serve"),
        ("tensors = 'npy'", "tensors without a command"),
        ("version = './rt --version'\ntensors = 'pb'", "tensors and version without a command"),
        ("requirements = ['onnxruntime=1.30']", "'onnxruntime=1.30' is none"),
        ("requirements = ['--index-url=x', 'a']", "'--index-url=x' is none"),
        ("requirements = 'onnxruntime==1.30'", "Expected `array`, got `str`"),
        ("requirments = ['onnxruntime==1.30']", "did you mean requirements?"),
    ],
)
def test_a_backend_that_cannot_be_is_refused_with_its_name_and_the_mend(tmp_path: Path, text: str, expected: str):
    assert expected in refused(tmp_path, f"[backends.mine]\n{text}")


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path):
    message = refused(tmp_path, "treads = 2")
    assert "unknown key 'treads'" in message
    assert "did you mean threads" in message


def test_an_unknown_key_of_a_backend_says_where_it_stands(tmp_path: Path):
    message = refused(tmp_path, '[backends.torch]\npyhton = "/bin/python"')
    assert "unknown key 'pyhton'" in message
    assert "backends" in message
    assert "did you mean python?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('threads = "2"', "Expected `int`, got `str` - at `$.threads`"),
        ("threads = true", "Expected `int`, got `bool` - at `$.threads`"),
        ("threads = 1.5", "`$.threads`"),
        ('timeout = "long"', "`$.timeout`"),
        ("out = 3", "`$.out`"),
        ('require = "torch"', "`$.require`"),
        ("require = [1]", "`$.require[0]`"),
        ("backends = 1", "`$.backends`"),
        ("[backends]\ntorch = 1", "`$.backends[...]`"),
        ("[backends.torch]\nenv = { A = 1 }", "`$.backends[...].env[...]`"),
    ],
)
def test_a_wrong_type_says_what_was_expected_and_where(tmp_path: Path, text: str, expected: str):
    assert expected in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        *("threads = 0", "threads = -1", "threads = 100000", f"threads = {10**30}"),
        *("timeout = 0", "timeout = 0.5", "timeout = nan", "timeout = inf"),
    ],
)
def test_numbers_below_one_and_those_without_sense_are_refused(tmp_path: Path, text: str):
    message = refused(tmp_path, text)
    assert "must be at least 1" in message
    assert "threads" in message
    assert "timeout" in message


@pytest.mark.parametrize("text", ["threads = ", "[backends", "threads = 1\nthreads = 2", b"out = '\xff'"])
def test_what_is_no_toml_says_so(tmp_path: Path, text: str | bytes):
    assert "not valid TOML" in refused(tmp_path, text)


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match=r"gone.toml: cannot be read: No such file"):
        read_config(tmp_path / "gone.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path)


def test_text_is_read_as_utf8_whatever_the_locale(tmp_path: Path):
    assert read_config(written(tmp_path, 'out = "größe"')).out == "größe"
