"""Release to export and back, a run to either: the bits, the types, the pictures stay."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from tests.parameters.torch_files import save_torch
from tests.parity import goldens
from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.parameters.blueprint import Blueprint, flatten
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.restoration.loading import load_model
from vosr_jax.restoration.summary import describe
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.weights import load_denoiser
from vosr_jax.weights.convert import write_export
from vosr_jax.weights.export import save_export
from vosr_jax.weights.manifest import verify
from vosr_jax.weights.official_writer import write_official
from vosr_jax.weights.package import Package, read_package

_WEIGHTS = "checkpoints/ema_model.safetensors"


def _release(name: str) -> Path:
    return goldens.folder("pipeline") / "preset/ckpts" / name


def _same(a: dict, b: dict) -> bool:
    """Names, types and bits."""
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes()
        for n in a
    )


@pytest.fixture
def writable(tmp_path):
    """A copy of a release's folders that may be changed."""

    def copy(name: str) -> Path:
        folder = tmp_path / "preset/ckpts"
        shutil.copytree(goldens.folder("pipeline") / "preset/ckpts", folder)
        for file in folder.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        return folder / name

    return copy


@pytest.mark.parametrize("name", ["VOSR_0.5B_ms", "VOSR_1.4B_os"])
def test_a_round_trip_keeps_every_bit_and_where_the_official_code_looks(tmp_path, name):
    source = _release(name)
    export = write_export(read_package(source), tmp_path / "export", shard_bytes=100_000)
    assert len(list(export.glob("model-*.safetensors"))) > 1
    checkpoint, notes = write_official(read_package(export), tmp_path / "back")
    assert checkpoint == tmp_path / "back/preset/ckpts" / name and notes == ()
    assert goldens.read_json(checkpoint / "args.json") == goldens.read_json(source / "args.json")
    ours = {f.relative_to(checkpoint.parent) for f in checkpoint.parent.rglob("*") if f.is_file()}
    for file in ours:
        original = source.parent / file
        if file.suffix == ".json":
            assert goldens.read_json(checkpoint.parent / file) == goldens.read_json(original)
        else:
            assert _same(read_tensors(checkpoint.parent / file), read_tensors(original))
    small = {"sd21_lwdecoder.pth", "stable-diffusion-2-1-base"}
    used = small if "0.5B" in name else {"Qwen-Image-vae-2d"}
    assert {file.parts[0] for file in ours} == {name, "torch_cache"} | used


@pytest.mark.parametrize(
    "name", ["VOSR_0.5B_os", pytest.param("VOSR_1.4B_os", marks=pytest.mark.slow)]
)
def test_an_export_gives_the_very_picture_of_the_release(tmp_path, name):
    export = write_export(read_package(_release(name)), tmp_path / "export")
    picture = goldens.folder("pipeline") / "inputs/square_16x16.png"
    expected = Upscaler.from_pretrained(_release(name))(picture)
    moved = export.rename(tmp_path / "moved")
    np.testing.assert_array_equal(Upscaler.from_pretrained(moved)(picture), expected)
    np.testing.assert_array_equal(
        flatten(load_denoiser(moved)[0])["modulation.kernel"],
        flatten(load_denoiser(_release(name))[0])["modulation.kernel"],
    )


def test_mixed_half_types_survive_the_round_trip(tmp_path, writable):
    source = writable("VOSR_0.5B_ms")
    tensors = load_file(source / _WEIGHTS)
    kinds = [np.float16, ml_dtypes.bfloat16, np.float32]
    mixed = {n: t.astype(kinds[i % 3]) for i, (n, t) in enumerate(sorted(tensors.items()))}
    save_file(mixed, source / _WEIGHTS)
    export = write_export(read_package(source), tmp_path / "export")
    checkpoint, _ = write_official(read_package(export), tmp_path / "back")
    assert _same(read_tensors(checkpoint / _WEIGHTS), read_tensors(source / _WEIGHTS))


def test_attention_under_its_old_names_keeps_them(tmp_path, writable):
    source = writable("VOSR_0.5B_ms")
    file = source.parent / "stable-diffusion-2-1-base/vae/diffusion_pytorch_model.safetensors"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = {}
    for name, tensor in load_file(file).items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{before}")
        tensors[name] = tensor
    save_file(tensors, file)
    export = write_export(read_package(source), tmp_path / "export")
    checkpoint, _ = write_official(read_package(export), tmp_path / "back")
    back = checkpoint.parent / file.relative_to(source.parent)
    assert _same(read_tensors(back), tensors)


def test_a_type_is_changed_only_where_every_value_fits(tmp_path):
    package = read_package(_release("VOSR_0.5B_ms"))
    half = write_export(package, tmp_path / "half", dtype="bfloat16")
    assert {t.dtype.name for t in read_tensors(half / "model.safetensors").values()} == {"bfloat16"}
    assert goldens.read_json(half / "manifest.json")["dtype"] == "bfloat16"
    large = dataclasses.replace(package, parameters=dict(package.parameters))
    large.parameters["modulation.bias"] = large.parameters["modulation.bias"] + 1e6
    with pytest.raises(UserError, match=r"modulation\.bias has values that float16 cannot hold"):
        write_export(large, tmp_path / "never", dtype="float16")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half"]


def test_the_manifest_names_sources_and_finds_any_change(tmp_path):
    source = _release("VOSR_0.5B_ms")
    folder = write_export(read_package(source), tmp_path / "export")
    manifest = goldens.read_json(folder / "manifest.json")
    assert manifest["source"]["kind"] == "release"
    assert "vae/config.json" in manifest["source"]["files"]
    assert str(source.parent) not in (folder / "manifest.json").read_text()
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert verify(folder) == len(files) - 1 == len(manifest["files"])
    weights = folder / "encoder/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"encoder/model\.safetensors is not the file that was wri"):
        verify(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"encoder/model\.safetensors is missing"):
        verify(folder)
    manifest["files"] = {"../x": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside its folder"):
        verify(folder)
    with pytest.raises(UserError, match="has no manifest.json"):
        verify(source)


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    package = read_package(_release("VOSR_0.5B_ms"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(UserError, match="mine exists and is not empty"):
        write_export(package, tmp_path / "mine")
    assert [file.name for file in tmp_path.rglob("*.*")] == ["notes.txt"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    package = read_package(_release("VOSR_0.5B_ms"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vosr_jax.weights.convert.write_manifest", full)
    with pytest.raises(UserError, match="out cannot be written .*No space left"):
        write_export(package, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_vosr_2_is_known_by_its_args_and_survives_both_conversions(tmp_path):
    source = _release("VOSR2")
    model = load_model(source)
    assert not model.sample_posterior and not model.guided and not model.sampler.r_input
    assert (model.sampler.steps, model.sampler.guidance_scale) == (1, 1.0)
    assert model.notes == () and "one-step (without the interval's end)" in describe(model)
    picture = goldens.folder("pipeline") / "inputs/square_16x16.png"
    expected = Upscaler(model)(picture)
    with pytest.raises(UserError, match="VOSR2 is a one-step model.*leave guidance_scale"):
        Upscaler(model)(picture, guidance_scale=0.5)

    export = write_export(read_package(source), tmp_path / "export")
    np.testing.assert_array_equal(Upscaler(load_model(export))(picture), expected)
    checkpoint, _ = write_official(read_package(export), tmp_path / "back")
    again = load_model(checkpoint)
    assert not again.guided and again.sampler.steps == 1
    np.testing.assert_array_equal(Upscaler(again)(picture), expected)


def test_releases_take_the_mode_and_wavelet_unless_asked_for_the_draw():
    for name in ("VOSR2", "VOSR_0.5B_ms", "VOSR_0.5B_os"):
        upscaler = Upscaler(load_model(_release(name)))
        assert upscaler.model.colour_fix == "wavelet" and upscaler.model.posterior == "mode"
        picture = goldens.folder("pipeline") / "inputs/square_16x16.png"
        mode, drawn = (
            np.asarray(upscaler(picture, steps=1, posterior=kind), int) for kind in (None, "sample")
        )
        assert np.array_equal(mode, upscaler(picture, steps=1, posterior="mode"))
        assert not np.array_equal(mode, drawn)
    with pytest.raises(UserError, match="posterior 'mean' is unknown"):
        upscaler(picture, posterior="mean")


def _trained(tmp_path, **changes) -> Package:
    """As a run of this package would leave it: a denoiser beside the goldens' parts."""
    package = read_package(_release("VOSR_0.5B_ms"))
    config = package.config
    for section, values in changes.items():
        part = dataclasses.replace(getattr(config, section), **values)
        config = dataclasses.replace(config, **{section: part})
    settings, rng = config.model_settings(), np.random.default_rng(0)
    shapes = Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0))).shapes
    parameters = {n: rng.normal(size=s.shape).astype(np.float32) for n, s in shapes.items()}
    own = json.loads(json.dumps(config.to_dict()))
    folder = save_export(tmp_path / "run", own, parameters, "float32", {"step": 3})
    return read_package(folder)


def test_a_model_trained_here_gets_an_args_json_and_official_names(tmp_path):
    changes = {"swiglu_multiple": 128}
    package = _trained(tmp_path, model=changes, autoencoder={"decoder": None})
    checkpoint, notes = write_official(package, tmp_path / "official")
    assert len(notes) == 1 and "--cfg_scale -0.5" in notes[0]
    # The light decoder lay beside the autoencoder and came along.
    assert (checkpoint.parent / "sd21_lwdecoder.pth").is_file()
    away = dataclasses.replace(package.config.autoencoder, path=str(tmp_path / "away"))
    moved = dataclasses.replace(package.config, autoencoder=away)
    _, notes = write_official(dataclasses.replace(package, config=moved), tmp_path / "second")
    assert "also needs preset/ckpts/sd21_lwdecoder.pth" in notes[1]
    official = load_file(_release("VOSR_0.5B_ms") / _WEIGHTS)
    written = load_file(checkpoint / _WEIGHTS)
    assert written.keys() == official.keys()
    for name in ("feat_rope.freqs_cos", "feat_rope.freqs_sin"):
        np.testing.assert_allclose(written[name], official[name], atol=1e-6)
    denoiser, settings = load_denoiser(checkpoint)
    assert settings == dataclasses.replace(package.config.model_settings(), swiglu_multiple=1)
    # The padding of the hidden width is gone, everything else is there.
    for name, value in flatten(denoiser).items():
        if ".mlp." not in name:
            np.testing.assert_array_equal(value, package.parameters[name])
    assert load_model(checkpoint).name == "run"


def test_a_detailer_cannot_be_written_officially(tmp_path):
    package = _trained(tmp_path, model={"detail_width": 8})
    with pytest.raises(UserError, match=r"run cannot be written .*detailer"):
        write_official(package, tmp_path / "official")
    nano = Path(__file__).parents[2] / "vosr_jax/pretrained/nano"
    with pytest.raises(UserError, match=r"detailer.*space_to_depth"):
        write_official(read_package(nano), tmp_path / "official")
    assert not (tmp_path / "official").exists()


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(UserError, match="gone: there is no such name or path"):
        read_package(tmp_path / "gone")
    with pytest.raises(UserError, match="is no model"):
        read_package(tmp_path)


def test_a_hostile_or_damaged_file_stops_the_conversion_with_its_name(tmp_path, writable):
    source = writable("VOSR_0.5B_ms")
    weights = source / _WEIGHTS
    good = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"ema_model\.safetensors is truncated"):
        read_package(source)
    save_file({n: t for n, t in good.items() if n != "t_block.1.bias"}, weights)
    with pytest.raises(UserError, match=r"tensor t_block\.1\.bias is missing"):
        read_package(source)
    save_file(good, weights)
    decoder = source.parent / "sd21_lwdecoder.pth"
    decoder.unlink()
    save_torch(decoder, {"config": {}, "model_state_dict": {"x": "no tensor"}})
    with pytest.raises(UserError, match=r"sd21_lwdecoder\.pth holds no tensors"):
        read_package(source)
