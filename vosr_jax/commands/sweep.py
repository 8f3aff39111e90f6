"""`vosr sweep`: many runs of one experiment, resumable, and one table of their results."""

import argparse


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    parser = commands.add_parser(
        "sweep",
        help="run and compare the trials of a sweep file",
        description="Run the trials of a sweep file one after another, or one of a job array, and "
        "gather what they came to. Finished trials are kept; a broken-off one goes on.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, function, text in (
        ("list", _list, "number, name and state of every trial"),
        ("run", _run, "run what is not finished"),
        ("gather", _gather, "judge the finished trials and write table, plot and results.json"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add = action.add_argument
        add("file", metavar="FILE", help="of configs/sweeps; --config.key=value is for all trials")
        add("--workdir", required=True, metavar="DIR", help="gets a folder for every trial")
        if name == "run":
            one = action.add_mutually_exclusive_group()
            one.add_argument("--index", type=int, help="only this trial, from 0")
            one.add_argument(
                "--array",
                action="store_true",
                help="only the trial of SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX",
            )
        action.set_defaults(run=function, takes_overrides=True)


def _list(options: argparse.Namespace) -> int:
    # These load JAX.
    from vosr_jax.sweeps import running, trials

    sweep, workdir = trials.load_sweep(options.file, options.overrides), options.workdir
    for number, trial in enumerate(sweep.trials):
        differing = trials.differences(trial, workdir)
        finished = running.finished(trial, workdir)
        state = "finished" if finished else "differs" if differing else "to do"
        print(f"{number:4} {state:8} {trial.name}")
        for difference in differing:
            print(f"              {difference}")
    return 0


def _run(options: argparse.Namespace) -> int:
    """Run the trials; the exit code is 1 if one failed."""
    # These load JAX.
    from vosr_jax.sweeps import running, trials

    sweep = trials.load_sweep(options.file, options.overrides)
    index = running.array_index() if options.array else options.index
    chosen = running.chosen(sweep.trials, index)
    failed = running.run_trials(chosen, options.workdir, lambda text: print(text, flush=True))
    if failed:
        print(f"{len(failed)} of {len(chosen)} trials failed: {', '.join(failed)}")
        return 1
    print(f"all {len(chosen)} trials are finished")
    return 0


def _gather(options: argparse.Namespace) -> int:
    # These load JAX.
    from vosr_jax.sweeps import aggregate, trials

    sweep = trials.load_sweep(options.file, options.overrides)
    print(aggregate.gather(sweep, options.workdir, lambda text: print(text, flush=True)))
    return 0
