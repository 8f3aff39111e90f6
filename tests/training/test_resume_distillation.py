"""A distillation that is killed and resumed, as real processes."""

import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.processes import finish, rows, start, wait_for_step
from tests.training.test_resume import saved_state
from vosr_jax.weights.convert import write_export
from vosr_jax.weights.package import read_package
from vosr_jax.weights.saved_run import teacher_of

STEPS, EVERY = 60, 10


@pytest.mark.slow
def test_a_killed_and_resumed_distillation_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path):
    cache = tmp_path / "cache"
    code, output = finish(start(tmp_path / "taught", cache, "--config.train.total_steps=4"))
    assert code == 0, output
    teacher = write_export(read_package(tmp_path / "taught"), tmp_path / "teacher")
    options = (
        f"--config.teacher={teacher}",
        f"--config.train.total_steps={STEPS}",
        f"--config.train.checkpoint_every={EVERY}",
        "--config.guidance.scale=0.5",
        "--config.objective.perceptual_rows=0",
    )

    def begin(workdir: Path):
        return start(workdir, cache, *options, config="configs/nano_onestep.py:first")

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, output = finish(begin(whole))
    assert code == 0, output
    process = begin(broken)
    killed_after = wait_for_step(process, broken, 2 * EVERY + 4)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert killed_after < STEPS, "the run was over before the kill"
    code, output = finish(begin(broken))
    assert code == 0 and "resumed at step" in output, output

    states = [saved_state(folder, STEPS) for folder in (whole, broken)]
    leaves, others = (jax.tree_util.tree_leaves_with_path(state) for state in states)
    assert [path for path, _ in leaves] == [path for path, _ in others]
    for (path, value), (_, other) in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(value, other, err_msg=jax.tree_util.keystr(path))
    losses = [{row["step"]: row["loss"] for row in rows(folder)} for folder in (whole, broken)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    assert teacher_of(whole) == teacher_of(broken) is not None
