"""args.json: every official key is known, every value checked, and the kind told by a rule."""

import dataclasses
from pathlib import Path

import pytest

from tests.parity import goldens
from vosr_jax.config import validate
from vosr_jax.errors import UserError
from vosr_jax.weights.official_args import config_of_args, kind_of_args
from vosr_jax.weights.official_writer import args_of_config, unofficial

FILE = Path("some/args.json")
# As the official training writes it: its whole config of the released 0.5B, multi-step.
ARGS = {
    **{"train_dataset_config": "x.txt", "suffix": "", "test_lq_dir": "a", "test_gt_dir": "b"},
    **{"test_upscale": 4, "infer_steps": 25, "resolution": 512, "train_batch_size": 8},
    **{"gradient_accumulation_steps": 1, "dataloader_num_workers": 8, "patch_size": 2},
    **{"mlp_ratio": 4, "use_qknorm": True, "use_swiglu": True, "use_rope": True},
    **{"use_rmsnorm": True, "wo_shift": False, "dim": 1024, "depth": 28, "num_heads": 16},
    **{"use_8bit_adam": False, "ae_type": "sd2"},
    "ae_path": "preset/ckpts/stable-diffusion-2-1-base",
    "lwdecoder_path": "preset/ckpts/sd21_lwdecoder.pth",
    **{"learning_rate": 5e-5, "max_train_steps": 400001, "checkpointing_steps": 10000},
    **{"inference_steps": 10000, "adam_beta1": 0.9, "adam_beta2": 0.95},
    **{"adam_weight_decay": 0.01, "adam_epsilon": 1e-8, "max_grad_norm": 1.0},
    **{"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0, "lr_num_cycles": 1},
    **{"use_ema": True, "mixed_precision": "bf16", "tracker_project_name": "vosr", "seed": 42},
    **{"ema_decay": 0.9999, "time_dist": ["uniform", 0, 1.0], "cfg_ratio": 0.1},
    **{"cfg_scale": -0.5, "weak_cond_strength_aelq_list": [0.05, 0.25]},
    **{"cond_strength_aelq_list": [5, 1], "dinov2_size": 448, "enc_type": "dinov2b"},
    **{"enc_dim": 768, "layer_dinov2b_list": [8], "interp_type": "lin", "a": 1.0, "b": 1.0},
    **{"use_pos": False, "train_steps": 2, "encdim_ratio": 3, "t_start": 0, "t_end": 1},
    **{"resume_ckpt": None, "pretrained_ckpt": "x.safetensors", "logging_dir": "logs"},
    **{"output_dir": "exp_vosr/name", "report_to": None, "dataset_type": "webdataset"},
    **{"shuffle_buffer": 2000, "exp_name": "name", "train_dataset_txt_paths_list": ["x"]},
    "train_dataset_prob_paths_list": [1.0],
}
DISTILLED = ARGS | {
    **{"teacher_ckpt": "t.safetensors", "weak_cond_strength_aelq": 0.1, "u_weight": 1.0},
    **{"distill_type": "rcgm", "infer_steps": 1},
}


def test_what_the_official_training_writes_is_known_to_the_last_key():
    for args, r_embedding in ((ARGS, False), (DISTILLED, True)):
        assert config_of_args(args, FILE, r_embedding=r_embedding)[1] == ()


def test_the_settings_are_those_of_the_release():
    config, _ = config_of_args(ARGS, FILE, r_embedding=False)
    model = config.model_settings()
    assert (model.width, model.depth, model.heads, model.token_width) == (1024, 28, 16, 768)
    assert (model.latent_size, model.latent_channels, model.r_embedding) == (64, 4, False)
    assert (config.guidance.scale, config.guidance.weak_strength) == (-0.5, 0.15)
    assert (config.sampling.steps, config.sampling.truncate) == (25, True)
    assert (config.encoder.block, config.encoder.size) == (8, 448)
    assert config.autoencoder.decoder == "preset/ckpts/sd21_lwdecoder.pth"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ae_type": "sd9"}, "ae_type is 'sd9'; known are sd2, qwen"),
        ({"enc_type": "clip"}, "enc_type is 'clip'; known are dinov2b, dinov2l, dinov2g"),
        ({"enc_type": None}, "enc_type is None; known are"),
        ({"enc_type": ["dinov2b"]}, r"enc_type is \['dinov2b'\]; known are"),
        ({"interp_type": "cubic"}, "interp_type is 'cubic'; known are lin, sph"),
        ({"distill_type": 3}, "distill_type is 3; a word"),
        ({"time_dist": ["beta", 0, 1]}, "time_dist is .*lognorm"),
        ({"dim": "wide"}, "dim is 'wide'; a positive whole number"),
        ({"dim": None}, "dim is None; a positive whole number"),
        ({"depth": True}, "depth is True; a positive whole number"),
        ({"infer_steps": 0}, "infer_steps is 0; a positive whole number"),
        ({"patch_size": 2.5}, "patch_size is 2.5; a positive whole number"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4'; a number"),
        ({"cfg_scale": float("nan")}, "cfg_scale is nan; a number"),
        ({"use_rope": 1}, "use_rope is 1; true or false"),
        ({"auxiliary_time_cond": "no"}, "auxiliary_time_cond is 'no'; true or false"),
        ({"ae_path": 3}, "ae_path is 3; a path"),
        ({"layer_dinov2b_list": []}, r"layer_dinov2b_list is \[\]; a list of numbers"),
        ({"layer_dinov2b_list": 8}, "layer_dinov2b_list is 8; a list"),
        ({"layer_dinov2b_list": [8.5]}, r"layer_dinov2b_list is \[8.5\]; whole numbers"),
        ({"weak_cond_strength_aelq_list": [0.1]}, "weak_cond_strength_aelq_list .* two numbers"),
        ({"num_heads": 15}, "cannot be run .*model.heads"),
    ],
)
def test_a_value_that_is_not_understood_names_file_key_and_what_is_known(changes, sentence):
    with pytest.raises(UserError, match=rf"some/args\.json.*{sentence}"):
        config_of_args(ARGS | changes, FILE)


def test_a_missing_key_is_named():
    for key in ("dim", "ae_type", "layer_dinov2b_list"):
        with pytest.raises(UserError, match=f"lacks the key {key}"):
            config_of_args({k: v for k, v in ARGS.items() if k != key}, FILE)


def test_unknown_keys_and_layers_without_effect_are_noted():
    args = ARGS | {"sharpness": 3, "layer_dinov2b_list": [8, 11]}
    notes = config_of_args(args, FILE)[1]
    assert notes[0] == "some/args.json has the unknown key sharpness, which is ignored"
    assert "names 2 visual layers; the official network uses one" in notes[1]


@pytest.mark.parametrize(
    ("changes", "r_embedding", "kind"),
    [
        ({}, False, "multi_step"),
        ({}, None, "multi_step"),
        ({"distill_type": "rcgm", "infer_steps": 1}, True, "one_step"),
        ({"distill_type": "rcgm"}, None, "one_step"),
        ({"auxiliary_time_cond": True}, None, "one_step"),
        # A student may be asked for several steps.
        ({"auxiliary_time_cond": True, "infer_steps": 4}, True, "one_step"),
        ({"infer_steps": 1}, False, "one_step_2"),
        ({"distill_type": "rcgm", "auxiliary_time_cond": False}, False, "one_step_2"),
        ({"distill_type": "onestep", "auxiliary_time_cond": False}, None, "one_step_2"),
        # Where the key is missing, the weights decide.
        ({"distill_type": "onestep", "infer_steps": 1}, True, "one_step"),
    ],
)
def test_the_kind_follows_the_documented_rule(changes, r_embedding, kind):
    assert kind_of_args(ARGS | changes, FILE, r_embedding) == kind


@pytest.mark.parametrize(("stated", "said"), [(False, "take"), (True, "do not take")])
def test_a_kind_that_contradicts_the_weights_is_refused(stated, said):
    args = ARGS | {"auxiliary_time_cond": stated}
    with pytest.raises(UserError, match=f"auxiliary_time_cond is {stated}.* weights {said} the"):
        kind_of_args(args, FILE, not stated)


VOSR2 = {k: v for k, v in ARGS.items() if "strength" not in k} | {
    "auxiliary_time_cond": False,
    "distill_type": "onestep",
    "infer_steps": 1,
}


def test_vosr_2_as_shipped_lacks_what_only_training_reads():
    config, notes = config_of_args(VOSR2, FILE, r_embedding=False)
    assert notes == () and not config.model.r_embedding and config.guidance.kind == "none"
    assert (config.sampling.steps, config.sampling.posterior) == (1, "mode")
    assert config.sampling.colour_fix == "wavelet"
    again = args_of_config(config)
    assert again["distill_type"] == "onestep" and again["auxiliary_time_cond"] is False
    back = config_of_args(again, FILE, r_embedding=False)[0]
    # The scale of a guidance that is none is not kept.
    assert dataclasses.replace(back, guidance=config.guidance) == config


def test_a_multi_step_model_needs_the_weak_strength_it_samples_by():
    args = {k: v for k, v in ARGS.items() if k != "weak_cond_strength_aelq_list"}
    with pytest.raises(UserError, match="lacks the key weak_cond_strength_aelq_list"):
        config_of_args(args, FILE, r_embedding=False)


def test_an_unknown_distillation_is_a_warning_since_restoring_does_not_depend_on_it():
    for r_embedding in (True, False):
        config, notes = config_of_args(
            ARGS | {"distill_type": "dmd", "infer_steps": 1}, FILE, r_embedding=r_embedding
        )
        assert "distill_type 'dmd' is unknown" in notes[0] and config.sampling.steps == 1


def test_our_settings_become_an_args_json_that_says_the_same():
    for name in ("VOSR_0.5B_ms", "VOSR_0.5B_os", "VOSR_1.4B_ms", "VOSR_1.4B_os"):
        folder = goldens.folder("pipeline") / "preset/ckpts" / name
        args = goldens.read_json(folder / "args.json")
        config, _ = config_of_args(args, folder / "args.json")
        again, notes = config_of_args(args_of_config(config), FILE)
        assert again.model_settings() == config.model_settings() and notes == ()
        assert again.sampling == config.sampling and again.autoencoder == config.autoencoder
        assert again.encoder == config.encoder and again.guidance.interval == (0.0, 1.0)
        if not config.model.r_embedding:
            assert again.guidance == config.guidance


def test_every_key_that_the_official_commands_read_is_written():
    read = (
        "ae_type resolution patch_size dim depth num_heads mlp_ratio enc_dim encdim_ratio "
        "use_qknorm use_swiglu use_rope use_rmsnorm wo_shift layer_dinov2b_list time_dist "
        "cfg_ratio interp_type t_start t_end dinov2_size enc_type weak_cond_strength_aelq_list"
    ).split()
    config, _ = config_of_args(DISTILLED, FILE, r_embedding=True)
    assert set(read) | {"distill_type"} <= args_of_config(config).keys()


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("model", {"detail_width": 32}, "detailer"),
        ("autoencoder", {"kind": "space_to_depth"}, "space_to_depth"),
        ("encoder", {"kind": "none"}, "encoder is none"),
        ("objective", {"prediction": "endpoint"}, "predicts the endpoint"),
        ("sampling", {"schedule": "cosine"}, "schedule is cosine"),
    ],
)
def test_what_the_official_network_cannot_be_is_said(section, changes, reason):
    config = validate(config_of_args(ARGS, FILE)[0].to_dict())
    assert unofficial(config) is None
    part = dataclasses.replace(getattr(config, section), **changes)
    assert reason in str(unofficial(dataclasses.replace(config, **{section: part})))
