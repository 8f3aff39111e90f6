"""The page gives the pictures of the command that it shows, through the service's own queue."""

import shlex
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.conftest import serving
from tests.serving.fakes import FakeUpscaler, fields, png, until
from vosr_jax import Upscaler, cli
from vosr_jax.serving import page_work
from vosr_jax.serving.fields import Fields, command_line, command_lines
from vosr_jax.serving.refusals import Refusal


def _files(folder: Path, *named: tuple[str, bytes]) -> list[tuple[str, Path]]:
    folder.mkdir(exist_ok=True)
    for name, content in named:
        (folder / name).write_bytes(content)
    return [(name, folder / name) for name, _ in named]


def _visit(service, uploads, asked, tell=lambda share, line: None):
    asked = asked if isinstance(asked, list) else [asked]
    return list(page_work.restore(service, uploads, asked, tell))[-1]


def test_several_pictures_keep_their_formats_and_names(start, tmp_path):
    _, service = start(FakeUpscaler(), batch=2, queue=2)
    named = ("a.png", png()), ("b b.jpg", png(form="JPEG")), ("é.webp", png(form="WEBP"))
    uploads = _files(tmp_path / "in", *named, ("d.gif", png(form="GIF")))
    visit = _visit(service, uploads, fields())
    assert [picture.result.name for picture in visit.pictures] == [
        *("a-2x.png", "b_b-2x.jpg", "é-2x.webp", "d-2x.png")
    ]
    for picture in visit.pictures:
        images = [Image.open(file) for file in (picture.before, picture.after, picture.result)]
        assert [image.size for image in images] == [(32, 32)] * 3
    assert service.idle
    folder = Path(visit.folder.name)
    assert folder.is_dir()
    visit.close()
    assert not folder.exists()


def test_a_bad_picture_leaves_the_others_alone(start, tmp_path):
    _, service = start(FakeUpscaler(), max_megabytes=0.1)
    named = [("a.png", png()), ("b.png", b"words"), ("c.png", bytes(200_000)), ("d.png", png())]
    visit = _visit(service, _files(tmp_path / "in", *named), fields())
    assert [picture.name for picture in visit.pictures] == ["a.png", "d.png"]
    assert [failure.partition(":")[0] for failure in visit.failures] == ["b.png", "c.png"]
    assert "larger than 0.1 MB" in visit.failures[1]
    visit.close()


def test_the_page_waits_in_the_same_queue(start, tmp_path):
    upscaler = FakeUpscaler(open_=False)
    client, service = start(upscaler, queue=1)
    uploads = _files(tmp_path / "in", ("a.png", png()))
    told = []
    steps = page_work.restore(service, uploads, [fields()], lambda share, line: told.append(line))
    with service.place():
        with pytest.raises(Refusal, match="full"):
            next(steps)
    steps = page_work.restore(service, uploads, [fields()], lambda *what: told.append(what))
    done = []
    thread = threading.Thread(target=lambda: done.extend(steps))
    thread.start()
    until(lambda: told)
    assert client.post("/v1/upscale", files={"file": ("a", png())}).status_code == 503
    upscaler.gate.set()
    thread.join(10)
    assert done[-1].pictures and told[0][1].startswith("a.png")
    done[-1].close()


def test_presets_of_a_picture_lie_beside_each_other(start, tmp_path):
    _, service = start(FakeUpscaler(), queue=3)
    uploads = _files(tmp_path / "in", ("a.png", png()), ("b.png", png()), ("c.png", b"words"))
    asked = [fields(), fields(preset="faithful"), fields(preset="creative")]
    visit = _visit(service, uploads, asked)
    assert [(picture.upload, picture.title) for picture in visit.pictures] == [
        *((0, f"a.png, {variant}") for variant in ("own", "faithful", "creative")),
        *((1, f"b.png, {variant}") for variant in ("own", "faithful", "creative")),
    ]
    assert visit.pictures[1].result.name == "a-2x-faithful.png"
    assert len(visit.failures) == 1 and visit.failures[0].startswith("c.png: ")
    assert service.idle
    visit.close()


def test_a_visitor_sees_finished_tiles_while_he_waits(start, tmp_path):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler)
    uploads = _files(tmp_path / "in", ("a.png", png()), ("b.png", png()))
    steps, seen = page_work.restore(service, uploads, [fields()], lambda share, line: None), []
    end = time.monotonic() + 20
    for visit in steps:
        assert time.monotonic() < end, "waited in vain"
        if visit.so_far is not None and visit.so_far not in seen:
            assert Image.open(visit.so_far).size == (2, 2)
            seen.append(visit.so_far)
        if seen:
            upscaler.gate.set()
    assert len(seen) == 1 and len(visit.pictures) == 2 and visit.so_far is None
    visit.close()


def test_programs_cost_no_previews(start):
    upscaler = FakeUpscaler()
    client, _ = start(upscaler)
    assert client.post("/v1/upscale", files={"file": ("a", png())}).status_code == 200
    assert not upscaler.watched


def test_the_commands_shown_write_apart():
    asked = [Fields(), Fields(preset="faithful")]
    assert command_lines(["a.png"], asked, "nano").split("\n") == [
        "vosr upscale a.png -o out/own/ -u 4 -m nano",
        "vosr upscale a.png -o out/faithful/ -u 4 -m nano --preset faithful",
    ]
    assert command_lines(["a.png"], asked[:1], "nano").startswith("vosr upscale a.png -o out/ -u 4")


def test_the_command_shown_makes_the_same_picture(tmp_path, monkeypatch):
    upscaler = Upscaler.from_pretrained("nano-onestep")
    asked = Fields(scale=2, preset="faithful", steps=2, seed=3, tile_size="128")
    files = _files(tmp_path, ("a b.png", png((20, 12))))
    with serving(upscaler) as (_, service):
        visit = _visit(service, files, asked)
        made = visit.pictures[0].result.read_bytes()
        visit.close()
    line = command_line(["a b.png"], asked, "nano-onestep")
    words = shlex.split(line)
    assert words[0] == "vosr"
    monkeypatch.chdir(tmp_path)
    assert cli.main(words[1:]) == 0
    assert (tmp_path / "out" / "a b.png").read_bytes() == made


def test_the_command_says_what_was_chosen():
    asked = Fields(scale=1.5, strength=0.5, colour_fix="adain", seed=9)
    line = command_line(["it's.jpg", "b.JPEG"], asked, "mine", ("bfloat16", "bfloat16"))
    assert line == (
        "vosr upscale 'it'\"'\"'s.jpg' b.JPEG -o out/ -u 1.5 -m PATH/TO/mine --strength 0.5 "
        "--colour-fix adain --seed 9 --precision bfloat16 "
        "--autoencoder-precision bfloat16 --format jpg"
    )


def test_the_page_is_at_the_root_and_the_interface_beside_it():
    pytest.importorskip("gradio")
    from fastapi.testclient import TestClient

    from vosr_jax.serving.api import create_app
    from vosr_jax.serving.page import mount_page
    from vosr_jax.serving.service import Service
    from vosr_jax.serving.settings import ServiceSettings

    for token in (None, "open-sesame"):
        settings = ServiceSettings(token=token, max_megabytes=0.01)
        service = Service(["fake"], lambda: [{"fake": FakeUpscaler()}], settings)
        app = create_app(service)
        mount_page(app, service)
        with TestClient(app) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            assert client.get("/openapi.json").json()["info"]["title"] == "vosr"
            assert client.get("/v1/upscale").json()["error"]
            for method, path in (("PUT", "/healthz"), ("TRACE", "/readyz"), ("POST", "/metrics")):
                answer = client.request(method, path)
                assert answer.status_code == 405 and answer.headers["allow"] == "GET"
            assert client.get("/v1/nothing").json().keys() == {"error"}
            root = client.get("/")
            assert root.status_code == 200 and "<html" in root.text
            config = client.get("/config")
            assert config.status_code == (200 if token is None else 401)
            large = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(300_000))})
            assert large.status_code == 413 and "0.2 MB" in large.json()["error"]
            assert client.get("/gradio_api/file=setup.py").status_code in (401, 403)
            if token is None:
                assert str(Path.cwd()) not in config.text and "fonts.googleapis" not in root.text
                continue
            for password, status in (("wrong", 400), (token, 200)):
                answer = client.post("/login", data={"username": "me", "password": password})
                assert answer.status_code == status
            assert client.get("/config").status_code == 200


def test_a_picture_that_takes_too_long_is_left(start, tmp_path):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler, max_seconds=0.3)
    named = ("a.png", png()), ("b.png", png((20, 20)))
    began = time.monotonic()
    visit = _visit(service, _files(tmp_path / "in", *named), fields())
    # Each had the time for itself.
    assert 0.6 < time.monotonic() - began < 6.0 and not visit.pictures
    assert len(visit.failures) == 2 and "was not finished" in visit.failures[0]
    until(lambda: upscaler.broken_off >= 1)
    visit.close()
