"""The images of `vosr serve`: what can be checked without building them."""

import http.server
import json
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import setuptools

from tests.launch.test_launch import lint, tool
from vosr_jax.commands.parser import parse
from vosr_jax.commands.serve import _PACKAGES

ROOT = Path(__file__).parents[2]
IMAGES = {"Dockerfile.serve": {"serve"}, "Dockerfile.serve.gpu": {"serve", "gpu"}}
_EXTRAS = re.compile(r"'\.\[([\w,]+)\]'")
# Distributions of the names that `vosr serve` imports.
_CALLED = {"python_multipart": "python-multipart", "prometheus_client": "prometheus-client"}


def instructions(name: str) -> list[str]:
    """The file's instructions, continued lines joined, without comments."""
    text = (ROOT / "launch" / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def one(name: str, word: str) -> str:
    (line,) = [line for line in instructions(name) if line.startswith(word + " ")]
    return line.removeprefix(word).strip()


@pytest.fixture
def declared(monkeypatch) -> dict:
    """What setup.py hands to setuptools."""
    given: dict = {}
    monkeypatch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def names_of(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_has_no_complaint(name):
    lint([tool("hadolint"), ROOT / "launch" / name])


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_its_extras_of_setup_py_and_no_other_package(name, declared):
    installs = [line for line in instructions(name) if "pip" in line and " install " in line]
    (asked,) = [found[1] for line in installs if (found := _EXTRAS.search(line))]
    assert set(asked.split(",")) == IMAGES[name] <= declared["extras_require"].keys()
    for line in installs:
        last = line.split(" install ")[1].split()
        words = {word for word in last if not word.startswith("--")}
        assert words <= {".", f"'.[{asked}]'"}


def test_the_extra_holds_what_the_service_asks_for_and_no_training_package(declared):
    extras = declared["extras_require"]
    serving = names_of(extras["serve"])
    assert serving >= {_CALLED.get(name, name) for name in (*_PACKAGES, "gradio")}
    training = names_of(extras["train"]) - names_of(declared["install_requires"])
    assert not training & serving


def test_both_images_differ_in_their_extras_alone():
    plain, gpu = (
        [_EXTRAS.sub("'.[EXTRAS]'", line) for line in instructions(name)] for name in IMAGES
    )
    assert plain == gpu


@pytest.mark.parametrize("name", IMAGES)
def test_the_last_stage_holds_what_was_installed_and_runs_as_a_user(name):
    lines = instructions(name)
    stages = [line.split() for line in lines if line.startswith("FROM ")]
    assert [stage[3] for stage in stages] == ["build", "serve"]
    assert len({stage[1] for stage in stages}) == 1, "a venv needs the Python that made it"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", stages[0][1])
    last = lines[lines.index(" ".join(stages[1])) :]
    assert [line for line in last if line.startswith(("COPY", "ADD"))] == [
        "COPY --from=build /opt/vosr /opt/vosr"
    ]
    user = last.index("USER 1000")
    assert not any(line.startswith("RUN") for line in last[user:])
    first = lines[: lines.index(" ".join(stages[1]))]
    sources = [part for line in first if line.startswith("COPY") for part in line.split()[1:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("name", IMAGES)
def test_the_entry_point_is_a_call_that_vosr_understands(name):
    program, *arguments = json.loads(one(name, "ENTRYPOINT"))
    options = parse(arguments)
    assert program == "vosr" and options.host == "0.0.0.0"
    assert one(name, "EXPOSE") == str(options.port)
    assert f"http://127.0.0.1:{options.port}/readyz" in one(name, "HEALTHCHECK")


@pytest.mark.parametrize("code, healthy", [(200, True), (503, False)])
def test_the_health_check_follows_readyz(code, healthy):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    command = json.loads(one("Dockerfile.serve", "HEALTHCHECK").split("CMD", 1)[1])
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = command[2].replace(":8000/", f":{server.server_port}/")
        done = subprocess.run([sys.executable, command[1], program], capture_output=True)
        server.shutdown()
    assert command[0] == "python" and (done.returncode == 0) == healthy
