"""Mistakes in the call of `vosr serve` are told before anything is loaded."""

import importlib.util

import pytest

from vosr_jax import cli
from vosr_jax.serving.server import listen


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-m", "nanno"], "did you mean nano?"),
        (["-m", "nano", "-m", "nano"], "two models are called nano"),
        (["--queue", "0"], "--queue must be at least 1"),
        (["--max-megapixels", "-1"], "--max-megapixels must be a number above 0"),
        (["--token", "two words"], "without spaces"),
    ],
)
def test_one_line(capsys, arguments, said):
    assert cli.main(["serve", "--api-only", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_a_taken_port_is_told(capsys):
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert cli.main(["serve", "--api-only", "--port", str(port)]) == 1
    assert f"no listening at 127.0.0.1, port {port}" in capsys.readouterr().err


def test_the_extra_is_named_where_it_is_missing(capsys, monkeypatch):
    present = importlib.util.find_spec("json")  # gradio may be absent here
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "uvicorn" else present)
    assert cli.main(["serve"]) == 1
    assert "(uvicorn): pip install 'vosr_jax[serve]'" in capsys.readouterr().err


def test_models_that_cannot_be_loaded_end_the_service(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert cli.main(["serve", "--api-only", "--port", "0", "-m", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
