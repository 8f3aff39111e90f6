"""Train or resume: python train.py --config configs/nano.py --workdir DIR [--config.key=value]."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from vosr_jax.config import validate
from vosr_jax.errors import UserError, run_main
from vosr_jax.quiet import quiet_libraries
from vosr_jax.script_flags import parse_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with the experiment's settings.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run there is resumed.")
_ALLOW = flags.DEFINE_bool(
    "allow_config_changes", False, "Resume although the workdir's config differs."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Let JAX find the job's processes (TPU pods, Slurm, GKE)."
)
_STOPPED = flags.DEFINE_integer(
    "stopped_exit_code",
    0,
    "Exit code of a run that was stopped before its last step and saved; other than 0 for "
    "schedulers that start again only what has failed.",
)


def main(argv: list[str]) -> int:
    """Validate the settings, then train; the exit code."""
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}; settings are given as --config.key=value")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config FILE and --workdir DIR")
    quiet_libraries()
    logging.set_verbosity(logging.WARNING)
    config = validate(_CONFIG.value)
    from vosr_jax.compilation_cache import use_compilation_cache
    from vosr_jax.host_memory import return_compiler_memory
    from vosr_jax.platforms import use_found_platform

    if not _DISTRIBUTED.value:
        use_found_platform()
    try:
        from vosr_jax.training.distributed import join
        from vosr_jax.training.loop import train
    except ImportError as error:
        raise UserError(f"training needs pip install '.[train]' ({error})") from error

    use_compilation_cache()
    return_compiler_memory()
    join(detect=_DISTRIBUTED.value)
    run = train(config, _WORKDIR.value, allow_config_changes=_ALLOW.value)
    return _STOPPED.value if run.step < config.train.total_steps else 0


if __name__ == "__main__":
    sys.exit(run_main(lambda: app.run(main, flags_parser=parse_flags)))
