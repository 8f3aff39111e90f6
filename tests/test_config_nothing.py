"""None on the command line."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from vosr_jax import script_flags
from vosr_jax.config import validate
from vosr_jax.config.from_file import config_from_file, take_nones
from vosr_jax.errors import UserError

CONFIG = "configs/nano_onestep.py"


def test_a_key_that_may_be_unset_is_unset_by_none():
    keys = {"teacher": None, "sampling.truncate": None, "encoder.token_width": None}
    config = config_from_file(CONFIG, [f"--config.{key}={value}" for key, value in keys.items()])
    assert config.teacher is None and config_from_file(CONFIG).teacher == "nano"
    assert config.sampling.truncate is None and config.encoder.token_width is None


def test_the_last_of_several_overrides_of_a_key_counts():
    given = ["--config.teacher=None", "--config.teacher=nano"]
    assert config_from_file(CONFIG, given).teacher == "nano"
    assert config_from_file(CONFIG, given[::-1]).teacher is None


def test_a_key_that_must_have_a_value_is_left_to_be_refused():
    given = ["train.py", "--config.optimizer.name=None", "--other=None", "--config.zzz=None"]
    assert take_nones(given) == (given, [])
    with pytest.raises(UserError, match="optimizer.name"):
        config_from_file(CONFIG, given[1:2])


def test_programs_take_it_too(monkeypatch):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    argv = ["train.py", f"--config={CONFIG}", "--config.teacher=None", "--config.seed=9"]
    monkeypatch.setattr(sys, "argv", argv)
    script_flags.parse_flags(argv)
    config = validate(values["config"].value)
    assert config.teacher is None and config.seed == 9
    assert sys.argv is argv
