"""A trial is what its whole config says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.test_sweeps import _PROGRAM, _figures, _file
from vosr_jax.cli import main
from vosr_jax.errors import UserError
from vosr_jax.sweeps import aggregate as gathering
from vosr_jax.sweeps import running
from vosr_jax.sweeps import score as judging
from vosr_jax.sweeps.aggregate import gather
from vosr_jax.sweeps.running import finished, run_trials
from vosr_jax.sweeps.trials import differences, load_sweep, settings_of

TEXT = 'product(fixed("train.total_steps", 2), sweep("seed", [1, 2]))'


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Loads a small sweep with other overrides for all of its trials."""
    program = tmp_path / "train.py"
    program.write_text(_PROGRAM)
    monkeypatch.setattr(running, "_program", lambda: program)
    path = _file(tmp_path, TEXT)
    return lambda *common: load_sweep(path, common)


def test_a_sweep_run_again_with_another_setting_names_the_difference(sweep_of, tmp_path):
    work, said = tmp_path / "work", []
    assert run_trials(sweep_of().trials, work, said.append) == []
    other = sweep_of("--config.optimizer.learning_rate=0.5").trials
    assert not any(finished(trial, work) for trial in other)
    assert run_trials(other, work, said.append) == [trial.name for trial in other]
    assert "not run" in said[-1] and "optimizer.learning_rate: 0.001 -> 0.5" in said[-1]
    assert "another --workdir" in said[-1] and str(work / other[1].name) in said[-1]
    logs = [(work / f"{trial.name}.log").read_text() for trial in other]
    assert logs == ["started\n"] * 2, "what is there stays as it is"
    assert all(finished(trial, work) for trial in sweep_of().trials)


def test_what_changes_no_result_makes_no_other_trial(sweep_of, tmp_path):
    work = tmp_path / "work"
    run_trials(sweep_of().trials, work, lambda _: None)
    same = ["data.workers=3", "train.log_every=7", "train.hang_seconds=9", "eval.pictures=2"]
    trials = sweep_of(*(f"--config.{text}" for text in same)).trials
    assert all(finished(trial, work) for trial in trials)


def test_a_shorter_or_longer_run_is_another_trial(sweep_of, tmp_path, monkeypatch):
    work = tmp_path / "work"
    run_trials(sweep_of().trials, work, lambda _: None)
    longer = _file(tmp_path / "longer", TEXT.replace('", 2)', '", 3)'))
    for trial, before in zip(load_sweep(longer).trials, sweep_of().trials, strict=True):
        (work / before.name).rename(work / trial.name)
        record = work / f"{before.name}.config.json"
        record.rename(work / f"{trial.name}.config.json")
        longer_too = ["optimizer.decay_steps: 2 -> 3", "train.total_steps: 2 -> 3"]
        assert differences(trial, work) == longer_too


def test_the_runs_own_config_counts_before_the_sweeps_record(sweep_of, tmp_path):
    work = tmp_path / "work"
    (trial, _) = sweep_of().trials
    run_trials([trial], work, lambda _: None)
    config = trial.config.to_dict()
    config["optimizer"] |= {"beta2": 0.5}
    (work / trial.name / "config.json").write_text(json.dumps(config))
    assert differences(trial, work) == ["optimizer.beta2: 0.5 -> 0.99"]
    (work / trial.name / "config.json").write_text('{"seed": ')
    (told,) = differences(trial, work)
    assert "config.json cannot be read" in told
    (work / trial.name / "config.json").write_text('{"no_such_key": 1}')
    (told,) = differences(trial, work)
    assert "no_such_key" in told


def test_before_the_first_checkpoint_a_trial_may_be_corrected(sweep_of, tmp_path):
    work = tmp_path / "work"
    (trial, _) = sweep_of("--config.data.sources=/no/such/folder").trials
    (work / trial.name).mkdir(parents=True)
    (work / trial.name / "config.json").write_text(json.dumps(trial.config.to_dict()))
    (right, _) = sweep_of().trials
    assert differences(right, work) == []
    # train.py then writes the corrected config; the program that stands in for it does not.
    (work / trial.name / "config.json").unlink()
    assert run_trials([right], work, lambda _: None) == [] and finished(right, work)


def test_the_list_of_trials_says_which_differ(sweep_of, tmp_path, capsys):
    work = tmp_path / "work"
    run_trials(sweep_of().trials[:1], work, lambda _: None)
    arguments = [str(tmp_path / "configs/sweeps/own.py"), "--workdir", str(work)]
    assert main(["sweep", "list", *arguments]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["finished", "to"]
    assert main(["sweep", "list", *arguments, "--config.ema.decay=0.5"]) == 0
    first, difference, second = capsys.readouterr().out.splitlines()
    assert "differs" in first and difference.strip() == "ema.decay: 0.999 -> 0.5"
    assert "to do" in second
    assert main(["sweep", "run", *arguments, "--config.ema.decay=0.5"]) == 1


def test_figures_of_other_settings_are_made_anew(sweep_of, tmp_path, monkeypatch):
    work, judged = tmp_path / "work", []
    run_trials(sweep_of().trials, work, lambda _: None)

    def judge(config, folder):
        judged.append(config.sampling.schedule)
        return _figures([(1.0, 20.0, 0.5)])

    monkeypatch.setattr(judging, "_judge", judge)
    monkeypatch.setattr(gathering, "_plot", lambda arms: "")
    gather(sweep_of(), work, lambda _: None)
    gather(sweep_of(), work, lambda _: None)
    assert judged == ["linear"] * 2, "kept for the same settings"
    for common in ("--config.sampling.schedule=cosine", "--config.eval.tile_size=7"):
        judged.clear()
        gather(sweep_of(common), work, lambda _: None)
        assert len(judged) == 2, common
    with pytest.raises(UserError, match="trained with another config .data.flip: True -> False"):
        gather(sweep_of("--config.data.flip=False"), work, lambda _: None)


def test_a_trial_of_another_config_is_left_out_of_the_table(sweep_of, tmp_path, monkeypatch):
    work = tmp_path / "work"
    first, second = sweep_of().trials
    run_trials([first], work, lambda _: None)
    run_trials([sweep_of("--config.ema.decay=0.5").trials[1]], work, lambda _: None)
    monkeypatch.setattr(judging, "_judge", lambda *_: _figures([(1.0, 20.0, 0.5)]))
    monkeypatch.setattr(gathering, "_plot", lambda arms: "")
    table = gather(sweep_of(), work, lambda _: None)
    assert f"{second.name} is left out" in table and "ema.decay: 0.5 -> 0.999" in table
    results = json.loads((work / "results.json").read_text())
    assert list(results["others"]) == [second.name] and len(results["arms"][0]["seeds"]) == 1


def test_none_in_a_list_is_no_text(tmp_path):
    text = 'sweep("teacher", [None, "nano"])'
    made = load_sweep(_file(tmp_path, text, "configs/nano_onestep.py"))
    assert [trial.config.teacher for trial in made.trials] == [None, "nano"]
    assert [trial.name for trial in made.trials] == ["teacher=None", "teacher=nano"]
    text = 'sweep("encoder.token_width", [None, 8])'
    made = load_sweep(_file(tmp_path / "int", text))
    assert [trial.config.encoder.token_width for trial in made.trials] == [None, 8]


def test_train_py_understands_the_arguments_of_such_a_trial(tmp_path):
    made = load_sweep(_file(tmp_path, 'sweep("teacher", [None])', "configs/nano_onestep.py"))
    code = (
        "import sys; from absl import app, flags; from ml_collections import config_flags\n"
        "from vosr_jax.script_flags import parse_flags\n"
        "flag = config_flags.DEFINE_config_file('config')\n"
        "app.run(lambda _: print(flag.value.teacher), flags_parser=parse_flags)\n"
    )
    command = [sys.executable, "-c", code, *made.trials[0].arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "None\n"


@pytest.mark.parametrize(
    "text",
    [
        'sweep("ema.decay", [0, 0.0])',
        'sweep("guidance.interval", [(0, 1), (0.0, 1.0)])',
        'chainit(product(sweep("seed", [1]), sweep("ema.decay", [0])), '
        'product(sweep("ema.decay", [0.0]), sweep("seed", [1])))',
    ],
)
def test_one_value_written_in_two_ways_is_one_trial(tmp_path, text):
    with pytest.raises(UserError, match="gives the trial .* twice, once as "):
        load_sweep(_file(tmp_path, text))


def test_texts_in_a_list_reach_the_config(tmp_path):
    text = 'sweep("eval.peers", [("bicubic", "lanczos"), (), ["folder:/a b"]])'
    made = load_sweep(_file(tmp_path, text))
    assert [trial.config.eval.peers for trial in made.trials] == [
        *(("bicubic", "lanczos"), (), ("folder:/a b",)),
    ]


def test_the_length_that_a_schedule_begins_with_is_no_difference(sweep_of):
    (trial, _) = sweep_of().trials
    settings = settings_of(trial.config)
    assert settings["train.total_steps"] == 2 and "data.workers" not in settings
    assert settings.get("optimizer.decay_steps", 2) == 2
