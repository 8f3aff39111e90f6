"""ComfyUI's node pack keeps ComfyUI's contract, with stand-ins for torch and ComfyUI.

benchmarks/comfyui_workflow.py runs it inside the real ComfyUI.
"""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vosr_jax import Upscaler
from vosr_jax.errors import UserError
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.restoration.settings import FIXES, PRECISIONS

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
COFFEE = Path(__file__).parents[2] / "assets" / "demo" / "coffee.png"


class Tensor:
    """As much of a tensor on a device as the nodes use; NumPy cannot read it there."""

    def __init__(self, values, on_host=False):
        self.values, self._on_host = values, on_host

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.values, on_host=True)

    def __array__(self, dtype=None, copy=None):
        assert self._on_host
        return self.values


class Interrupted(Exception):
    """ComfyUI's, once the user has cancelled."""


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI's bar and its button to cancel."""
    state = SimpleNamespace(shares=[], previews=[], cancelled=False)

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            state.shares.append(value / total)
            state.previews += [] if preview is None else [preview]

    def throw():
        if state.cancelled:
            raise Interrupted

    modules = {name: ModuleType(name) for name in ("comfy", "comfy.utils", "torch")}
    modules["comfy.utils"].ProgressBar = ProgressBar
    modules["torch"].from_numpy = Tensor
    modules["comfy"].model_management = SimpleNamespace(
        soft_empty_cache=lambda: None, throw_exception_if_processing_interrupted=throw
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return state


@pytest.fixture(scope="module")
def pack():
    """The folder, loaded as ComfyUI loads it: under its path as a name."""
    name = str(PACK).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def _node(pack, name):
    return pack.NODE_CLASS_MAPPINGS[name]


def _given(pack, name, **given):
    """A call's arguments: the widgets' defaults, as the page sends them, and what is given."""
    widgets = _node(pack, name).INPUT_TYPES()["required"]
    defaults = {
        key: widget[1]["default"]
        for key, widget in widgets.items()
        if len(widget) > 1 and "default" in widget[1]
    }
    return defaults | given


def _picture(size=(24, 16)):
    return np.asarray(Image.open(COFFEE).convert("RGB").resize(size), np.float32) / 255


def _eight_bits(tensor):
    """What SaveImage writes: it cuts."""
    return np.clip(255.0 * np.asarray(tensor.cpu()), 0, 255).astype(np.uint8)


def test_every_node_has_what_comfyui_asks_of_it(pack):
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in pack.NODE_CLASS_MAPPINGS.values():
        required = node.INPUT_TYPES()["required"]
        function = getattr(node(), node.FUNCTION)
        assert list(inspect.signature(function).parameters) == list(required)
        assert isinstance(node.RETURN_TYPES, tuple) and node.CATEGORY
        for kind, *options in required.values():
            if isinstance(kind, list):
                assert options[0]["default"] in kind


def test_the_choices_are_the_upscalers(pack):
    widgets = _node(pack, "VosrUpscale").INPUT_TYPES()["required"]
    assert tuple(widgets["preset"][0][1:-1]) == PRESETS
    assert set(widgets["colour_fix"][0][1:]) == set(FIXES)
    precisions = _node(pack, "VosrLoadModel").INPUT_TYPES()["required"]["precision"][0]
    assert set(precisions) == set(PRECISIONS)


def test_the_workflow_has_nodes_and_inputs_that_there_are(pack):
    for node in json.loads((PACK / "workflow.json").read_text()).values():
        if node["class_type"] in pack.NODE_CLASS_MAPPINGS:
            known = _node(pack, node["class_type"]).INPUT_TYPES()["required"]
            assert node["inputs"].keys() == known.keys()


def test_the_registry_is_told_what_it_asks_for():
    told = tomllib.loads((PACK / "pyproject.toml").read_text())
    assert told["project"].keys() >= {"name", "version", "license", "description", "urls"}
    assert told["project"]["name"].isascii() and "comfyui" not in told["project"]["name"].lower()
    assert len(told["project"]["version"].split(".")) == 3
    assert told["tool"]["comfy"].keys() >= {"PublisherId", "DisplayName"}


def test_an_upscale_is_the_upscalers_own(pack, comfy):
    (model,) = _node(pack, "VosrLoadModel")().load(" nano-onestep ", "float32")
    batch = np.stack([_picture(), _picture()[::-1]])
    given = _given(pack, "VosrUpscale", vosr_model=model, image=Tensor(batch), seed=3, scale=2.5)
    (made,) = _node(pack, "VosrUpscale")().upscale(**given)
    assert made.values.dtype == np.float32 and made.values.shape == (2, 40, 60, 3)
    upscaler = Upscaler.from_pretrained("nano-onestep")
    for picture, result in zip(batch, _eight_bits(made), strict=True):
        expected = upscaler(picture, scale=2.5, seed=3, tile_size="auto")
        np.testing.assert_array_equal(result, np.asarray(expected))
    assert comfy.shares == sorted(comfy.shares) and comfy.shares[-1] == 1


def test_settings_reach_the_model(pack, comfy):
    upscaler = Upscaler.from_pretrained("nano")
    chosen = {"scale": 2.0, "colour_fix": "wavelet", "tile_size": "128", "steps": 2}
    for preset, own in (("faithful", upscaler.preset("faithful")), ("by guidance_scale", None)):
        own = {"guidance_scale": 1.25} if own is None else own
        image = Tensor(_picture()[None])
        given = _given(pack, "VosrUpscale", vosr_model=upscaler, image=image, preset=preset)
        given |= chosen | {"guidance_scale": 1.25}
        (made,) = _node(pack, "VosrUpscale")().upscale(**given)
        expected = upscaler(_picture(), **(chosen | {"tile_size": 128} | own))
        np.testing.assert_array_equal(_eight_bits(made)[0], np.asarray(expected))


def test_a_fourth_channel_is_kept_and_what_overshoots_is_cut(pack, comfy):
    upscaler = Upscaler.from_pretrained("nano-onestep")
    image = np.concatenate([_picture(), np.full((16, 24, 1), 0.5, np.float32)], axis=-1)
    image[0, 0, 0], image[1, 1, 1] = 1.2, -0.1
    given = _given(pack, "VosrUpscale", vosr_model=upscaler, image=Tensor(image[None]))
    (made,) = _node(pack, "VosrUpscale")().upscale(**given)
    expected = upscaler(np.clip(image, 0, 1), tile_size="auto")
    np.testing.assert_array_equal(_eight_bits(made)[0], np.asarray(expected))
    assert made.values.shape[-1] == 4


def test_every_grey_level_survives_until_it_is_saved(pack, comfy):
    pictures = sys.modules[_node(pack, "VosrUpscale").__module__].to_images
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    np.testing.assert_array_equal(_eight_bits(pictures([levels]))[0], levels)


def test_finished_tiles_are_shown(pack, comfy, monkeypatch):
    monkeypatch.setattr("vosr_jax.restoration.restore._PAUSE", 1e-9)
    monkeypatch.setattr("vosr_jax.restoration.restore._SHARE", 1e12)
    upscaler = Upscaler.from_pretrained("nano-onestep")
    image = Tensor(_picture((150, 40))[None])
    given = _given(pack, "VosrUpscale", vosr_model=upscaler, image=image, tile_size="256")
    (made,) = _node(pack, "VosrUpscale")().upscale(**given)
    kind, last, side = comfy.previews[-1]
    assert len(comfy.previews) == len(comfy.shares) > 1
    assert kind == "JPEG" and max(last.size) == side == 512
    whole = Image.fromarray(_eight_bits(made)[0]).resize(last.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(last, float) - np.asarray(whole, float)).mean() < 4


def test_a_user_who_cancels_is_heeded(pack, comfy):
    upscaler = Upscaler.from_pretrained("nano-onestep")
    given = _given(pack, "VosrUpscale", vosr_model=upscaler, image=Tensor(_picture()[None]))
    comfy.cancelled = True
    with pytest.raises(Interrupted):
        _node(pack, "VosrUpscale")().upscale(**given)


def test_bad_input_is_one_sentence(pack, comfy, tmp_path):
    load, upscale = _node(pack, "VosrLoadModel")().load, _node(pack, "VosrUpscale")().upscale
    with pytest.raises(UserError, match="nowhere"):
        load(str(tmp_path / "nowhere"), "auto")
    upscaler = Upscaler.from_pretrained("nano-onestep")
    image = Tensor(_picture()[None])
    given = _given(pack, "VosrUpscale", vosr_model=upscaler, image=image)
    with pytest.raises(UserError, match="scale must be between 1 and 8, not 9"):
        upscale(**(given | {"scale": 9.0}))
    with pytest.raises(UserError, match="one-step model"):
        upscale(**(given | {"preset": "by guidance_scale"}))
    with pytest.raises(ValueError, match="an IMAGE must be"):
        upscale(**(given | {"image": Tensor(_picture())}))


def test_a_missing_package_is_named_with_the_python_that_lacks_it(pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "vosr_jax", None)
    with pytest.raises(RuntimeError, match="vosr_jax is missing in ComfyUI's Python") as error:
        _node(pack, "VosrLoadModel")().load("nano", "auto")
    assert sys.executable in str(error.value)


def test_before_and_after_lie_beside_each_other(pack, comfy):
    compare = _node(pack, "VosrCompare")().compare
    before, after = np.zeros((1, 4, 8, 3), np.float32), np.full((2, 8, 16, 3), 0.5, np.float32)
    (made,) = compare(Tensor(before), Tensor(after), "side by side", 0.5)
    made = _eight_bits(made)
    assert made.shape == (2, 8, 40, 3)
    assert (made[..., :16, :] == 0).all() and (made[..., 24:, :] == 128).all()
    (made,) = compare(Tensor(before), Tensor(after), "split", 0.25)
    made = _eight_bits(made)
    assert made.shape == (2, 8, 16, 3)
    assert (made[..., :3, :] == 0).all() and (made[..., 5:, :] == 128).all()
    assert (made[..., 3:5, :] == 255).all()
    with pytest.raises(ValueError, match="before has 3 pictures and after 2"):
        compare(Tensor(before.repeat(3, 0)), Tensor(after), "split", 0.5)


def test_jax_leaves_the_gpus_memory_to_torch_unless_the_user_decides():
    code = "import os, comfyui; print(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])"
    code = (
        f"{code}; import sys; print([m for m in ('jax', 'torch', 'vosr_jax') if m in sys.modules])"
    )
    for own, expected in ((None, "false"), ("true", "true")):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("XLA_PYTHON")}
        environment |= {"PYTHONPATH": str(PACK.parent)}
        if own is not None:
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = own
        said = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert said.stdout.split("\n")[:2] == [expected, "[]"], said.stderr
