"""Compiler options: known to XLA, and each platform's alone."""

import jax
import jax.numpy as jnp
import pytest

from vosr_jax.training.build import compiler_options


def test_cpu_programs_ask_for_nothing():
    assert compiler_options("cpu", deterministic=True) == {}


@pytest.mark.parametrize("deterministic", [False, True])
def test_gpu_options_are_known_to_xla(deterministic: bool):
    asked = compiler_options("gpu", deterministic=deterministic)
    assert ("xla_gpu_deterministic_ops" in asked) == deterministic
    # They are parsed by every build, and obeyed by that for GPUs.
    step = jax.jit(lambda x: x + 1, compiler_options=asked)
    assert int(step(jnp.int32(1))) == 2


def test_what_the_user_sets_is_left_to_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_gpu_enable_latency_hiding_scheduler=false")
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_jf_spmd_threshold_for_windowed_einsum_mib=0")
    assert list(compiler_options("gpu", deterministic=True)) == [
        "xla_gpu_deterministic_ops",
        "xla_gpu_autotune_level",
    ]
    assert compiler_options("tpu") == {}


def test_an_unknown_option_is_not_passed_over():
    with pytest.raises(Exception, match="xla_gpu_no_such_option"):
        jax.jit(lambda x: x, compiler_options={"xla_gpu_no_such_option": True})(1)
