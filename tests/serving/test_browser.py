"""A headless Chromium uses the page as a visitor would.

    VOSR_SCREENSHOTS=docs pytest tests/serving/test_browser.py -m slow

keeps the pictures of the page, among them docs/serve.png.
"""

import contextlib
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from playwright.sync_api import sync_playwright

from tests.serving.fakes import FakeUpscaler, png, until
from vosr_jax import Upscaler
from vosr_jax.restoration.inputs import picture_seed
from vosr_jax.serving.api import create_app
from vosr_jax.serving.page import mount_page
from vosr_jax.serving.server import Server, listen
from vosr_jax.serving.service import Service
from vosr_jax.serving.settings import ServiceSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium"),
]
DEMO = Path(__file__).parents[2] / "assets" / "demo"
# Nothing that a browser does by itself.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DESKTOP, PHONE = (1280, 960), (390, 844)


@contextlib.contextmanager
def _served(name, upscaler, **settings):
    """(service, address) of a page."""
    service = Service([name], lambda: [{name: upscaler}], ServiceSettings(**settings))
    app = create_app(service)
    mount_page(app, service)
    listener = listen("127.0.0.1", 0)
    server = Server(app, service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: service.trouble or server.started)
        yield service, f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextlib.contextmanager
def _browser(size=DESKTOP, dark=False):
    """A page of a browser that has asked nobody but this machine."""
    asked = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
        )
        page.set_default_timeout(90_000)
        page.on("request", lambda request: asked.append(request.url))
        yield page
        browser.close()
    local = ("http://127.0.0.1", "data:", "blob:")
    assert not [address for address in asked if not address.startswith(local)]


def _upload(page, address, *files):
    page.goto(address)
    page.get_by_role("button", name="Upscale", exact=True).wait_for()
    page.set_input_files("input[type=file]", [str(file) for file in files])
    page.get_by_text("KB").nth(len(files) - 1).wait_for()


def _upscale(page):
    page.get_by_role("button", name="Upscale", exact=True).click()


def _result(page, name):
    page.locator(f"a[download='{name}']").wait_for()


def _keep(part, name, folder, **whole):
    """A picture of a page or of a part of it, in 256 colours to keep the file small."""
    folder = Path(os.environ.get("VOSR_SCREENSHOTS", folder))
    part.screenshot(path=folder / name, **whole)
    image = Image.open(folder / name).convert("RGB")
    image.thumbnail((900, 10_000), Image.Resampling.LANCZOS)
    image.quantize(256).save(folder / name, optimize=True)


def test_photographs_are_restored_compared_and_taken(tmp_path):
    upscaler = Upscaler.from_pretrained("nano-onestep")
    files = [DEMO / "dragonfly.jpg", DEMO / "coffee.png"]
    with _served("nano-onestep", upscaler) as (_, address), _browser() as page:
        _upload(page, address, *files)
        _upscale(page)
        _result(page, "coffee-4x.png")
        assert "vosr upscale dragonfly.jpg coffee.png -o out/ -u 4 -m nano-onestep" in (
            page.locator("#command").inner_text()
        )
        assert "small model" in page.content()
        _drag(page)
        _keep(page, "serve.png", tmp_path, full_page=True)
        page.get_by_role("radio", name="dragonfly.jpg").check()
        for name, source in (("coffee-4x.png", files[1]), ("dragonfly-4x.jpg", files[0])):
            with page.expect_download() as waiting:
                page.locator(f"a[download='{name}']").click()
            waiting.value.save_as(tmp_path / name)
            content = source.read_bytes()
            expected = upscaler(content, seed=picture_seed(0, content), tile_size="auto")
            made = Image.open(tmp_path / name)
            assert made.size == expected.size
            apart = np.abs(np.asarray(made, float) - np.asarray(expected, float)).mean()
            assert apart == 0 if name.endswith("png") else apart < 3


def _drag(page):
    """Pull the slider's handle to the left."""
    handle = page.locator(".handle-wrap, .outer .inner, [role=slider]").first
    box = page.locator("[data-testid='imageslider'], .slider-wrap").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = handle.bounding_box()["x"] if handle.count() else None
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 90, middle[1], steps=5)
    page.mouse.up()
    if before is not None:
        until(lambda: handle.bounding_box()["x"] != before)


def test_a_phone_in_the_dark_shows_all_of_it(tmp_path):
    with _served("fake", FakeUpscaler()) as (_, address), _browser(PHONE, dark=True) as page:
        _upload(page, address, DEMO / "dragonfly.jpg")
        page.get_by_role("button", name="Settings").click()
        assert page.get_by_label("Strength").input_value() == ""
        page.get_by_label("Seed").fill("5")
        _upscale(page)
        _result(page, "dragonfly-4x.jpg")
        assert "-m PATH/TO/fake --seed 5 --format jpg" in page.locator("#command").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, background.strip("rgba()").split(",")[:3])) < 60
        _keep(page, "serve-phone.png", tmp_path, full_page=True)


def test_presets_lie_beside_each_other(tmp_path):
    upscaler = Upscaler.from_pretrained("nano-onestep")
    with _served("nano-onestep", upscaler) as (_, address), _browser() as page:
        _upload(page, address, DEMO / "dragonfly.jpg")
        page.get_by_label("faithful").check()
        page.get_by_label("creative").check()
        _upscale(page)
        _result(page, "dragonfly-4x-creative.jpg")
        assert "-o out/faithful/ -u 4 -m nano-onestep --preset faithful" in (
            page.locator("#command").inner_text()
        )
        panels = page.locator("#beside button img")
        until(lambda: panels.count() == 3 and all(_width(panel) == 512 for panel in panels.all()))
        box = panels.nth(1).bounding_box()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
        places = [
            panel.evaluate("image => getComputedStyle(image).objectPosition")
            for panel in panels.all()
        ]
        assert len(set(places)) == 1 and places[0] != "50% 50%"
        assert not page.locator("#state").is_visible()
        _keep(page.locator("#beside"), "serve-presets.png", tmp_path)


def _width(image):
    return image.evaluate("image => image.naturalWidth")


def test_finished_tiles_are_seen_before_the_picture_is(tmp_path):
    upscaler = FakeUpscaler(open_=False)
    with _served("fake", upscaler) as (_, address), _browser() as page:
        _upload(page, address, DEMO / "coffee.png")
        _upscale(page)
        page.get_by_text("So far").wait_for()
        page.locator("#state progress").wait_for()
        assert "coffee.png" in page.locator("#state").inner_text()
        upscaler.gate.set()
        _result(page, "coffee-4x.png")
        page.get_by_text("So far").wait_for(state="hidden")
        page.locator("#state progress").wait_for(state="hidden")


def test_stop_breaks_the_work_off(tmp_path):
    upscaler = FakeUpscaler(open_=False)
    with _served("fake", upscaler) as (service, address), _browser() as page:
        _upload(page, address, DEMO / "coffee.png")
        _upscale(page)
        until(upscaler.begun.is_set)
        page.get_by_role("button", name="Stop", exact=True).click()
        until(lambda: upscaler.broken_off == 1 and service.idle)
        page.locator("#state progress").wait_for(state="hidden")
        upscaler.gate.set()
        _upscale(page)
        _result(page, "coffee-4x.png")


def test_a_visitor_who_leaves_frees_the_place(tmp_path):
    upscaler = FakeUpscaler(open_=False)
    with _served("fake", upscaler) as (service, address):
        with _browser() as page:
            _upload(page, address, DEMO / "coffee.png")
            _upscale(page)
            until(upscaler.begun.is_set)
        until(lambda: upscaler.broken_off == 1 and service.idle, 30)


def test_what_cannot_be_done_is_said(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(png()[:60] * 30)
    with _served("fake", FakeUpscaler(), queue=1) as (service, address), _browser() as page:
        page.goto(address)
        _upscale(page)
        page.get_by_text("Choose a photograph first.").wait_for()
        _upload(page, address, broken, DEMO / "coffee.png")
        _upscale(page)
        _result(page, "coffee-4x.png")
        page.get_by_text("broken.png: the picture is damaged").wait_for()
        with service.place():
            _upscale(page)
            page.get_by_text("the queue is full").wait_for()


def test_a_token_is_asked_for(tmp_path):
    with _served("fake", FakeUpscaler(), token="open-sesame") as (_, address):
        with _browser() as page:
            page.goto(address)
            page.get_by_label("username").fill("me")
            page.get_by_label("password").fill("open-sesame")
            page.get_by_role("button", name="Login").click()
            page.get_by_role("button", name="Upscale", exact=True).wait_for()
