"""The official layout: where files are looked for, and what is refused."""

import json

import pytest

from vosr_jax.errors import UserError
from vosr_jax.weights import release

_ARGS = {
    "ae_type": "sd2",
    "resolution": 64,
    "patch_size": 2,
    "dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 4,
    "enc_dim": 64,
    "encdim_ratio": 3,
    "use_qknorm": True,
    "use_swiglu": True,
    "use_rope": True,
    "use_rmsnorm": True,
}


def _folder(tmp_path, **changes):
    folder = tmp_path / "preset/ckpts/model"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(_ARGS | changes))
    return folder


def test_args_are_found_up_to_five_folders_above(tmp_path):
    folder = _folder(tmp_path)
    deep = folder / "a/b/c/d/e"
    deep.mkdir(parents=True)
    assert release.read_args(deep)[0]["dim"] == 32
    (deep / "f").mkdir()
    with pytest.raises(UserError, match="args.json"):
        release.read_args(deep / "f")


def test_averaged_weights_are_taken_before_raw_ones(tmp_path):
    folder = _folder(tmp_path)
    with pytest.raises(UserError, match="no weights"):
        release.find_weights(folder)
    for name in ("model.safetensors", "ema_model.safetensors"):
        (folder / "checkpoints" / name).write_bytes(b"")
        assert release.find_weights(folder).name == name


def test_settings_follow_from_args(tmp_path):
    args, file = release.read_args(_folder(tmp_path, auxiliary_time_cond=True))
    settings = release.denoiser_settings(args, file)
    assert (settings.latent_size, settings.width, settings.token_width) == (8, 32, 64)
    assert settings.r_embedding


@pytest.mark.parametrize("changes", [{"ae_type": "sd9"}, {"dim": None}, {"dim": "wide"}])
def test_a_value_that_is_not_understood_names_the_file(tmp_path, changes):
    args, file = release.read_args(_folder(tmp_path, **changes))
    with pytest.raises(UserError, match="args.json"):
        release.denoiser_settings(args, file)
    args.pop("depth")
    with pytest.raises(UserError, match="args.json"):
        release.denoiser_settings(args, file)


def test_parts_are_found_from_above_or_beside_the_checkpoint(tmp_path):
    _, file = release.read_args(_folder(tmp_path))
    (tmp_path / "preset/ckpts/vae").mkdir()
    assert release.find_part("preset/ckpts/vae", file) == tmp_path / "preset/ckpts/vae"
    assert release.find_part("elsewhere/vae", file) == tmp_path / "preset/ckpts/vae"
    with pytest.raises(UserError, match="decoder.pth"):
        release.find_part("preset/ckpts/decoder.pth", file)
