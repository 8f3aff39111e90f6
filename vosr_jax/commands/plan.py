"""`vosr plan`: predict a training run's needs with the real compiler, without the devices."""

import argparse
import importlib
import json
import os
import sys

from vosr_jax.errors import UserError
from vosr_jax.quiet import silenced


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    plan = commands.add_parser(
        "plan",
        help="what a training run needs on a TPU slice, before it is paid for",
        description="Compile the very step that train.py would run on a TPU slice, on this "
        "machine, and reckon memory, communication, time and cost from the program.",
    )
    add = plan.add_argument
    add("--config", required=True, metavar="FILE", help="as for train.py, also --config.key=value")
    add("--topology", required=True, metavar="SLICE", help="v5p:4x4x4, v5e-256, 2*v5e:16x16")
    add("--sweep", action="store_true", help="try batch sizes, rematerialization and meshes")
    add("--json", action="store_true", help="print the plan as JSON")
    add("--slowest", type=int, default=0, metavar="N", help="also the N slowest operations")
    add("--save-executable", metavar="FILE", help="keep the compiled step for train.executable")
    plan.set_defaults(run=run, takes_overrides=True)


def run(options: argparse.Namespace) -> int:
    """Print the plan; the exit code is 1 if the step does not fit."""
    # The compiler gets a description of its devices; JAX must not open this machine's.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # These load JAX, which reads that.
    from vosr_jax.config.from_file import config_from_file
    from vosr_jax.planning.topology import devices_of, parse_topology

    if options.sweep and options.save_executable:
        raise UserError("--save-executable keeps one step; leave --sweep out")
    topology = parse_topology(options.topology)
    config = config_from_file(options.config, options.overrides)
    try:
        importlib.import_module("optax")
    except ImportError as error:
        raise UserError(f"planning needs pip install 'vosr_jax[plan]' ({error})") from error
    with silenced():
        # The compiler, when loaded, prints complaints about the missing TPU.
        devices_of(topology)
    # These load optax, too.
    from vosr_jax.planning.plan import describe, make_plan
    from vosr_jax.planning.sweep import describe_sweep, sweep

    if options.sweep:
        plans = sweep(config, topology, tell=lambda text: print(text, file=sys.stderr, flush=True))
        if options.json:
            print(json.dumps([plan.to_dict() for plan in plans], indent=1))
        else:
            print(describe_sweep(plans))
        return 0 if any(plan.fits for plan in plans) else 1
    plan = make_plan(
        config, topology, slowest=options.slowest, start=True, executable=options.save_executable
    )
    print(json.dumps(plan.to_dict(), indent=1) if options.json else describe(plan, topology))
    if options.save_executable and not plan.executable:
        reason = plan.not_saved or "the step does not fit"
        raise UserError(f"{options.save_executable} was not written: {reason}")
    return 0 if plan.fits else 1
