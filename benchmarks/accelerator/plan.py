"""The parts of a check, the most valuable first."""

import dataclasses
import sys
from pathlib import Path

from benchmarks.accelerator.jobs import Job, Part
from benchmarks.accelerator.restorers import KINDS

# Each process takes device memory as it needs it, so that several may run side by side.
_SIDE_BY_SIDE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_ALONE = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.94"}
_EXACT = _SIDE_BY_SIDE | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# Tiny programs take longer to compile than to run.
_COMPILED_PLAINLY = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PLATFORMS": "cpu",
}
# name: (file of tests/parity, of its tests, of them in a dry run)
_SUITES = {
    "lightningdit, velocity": ("test_lightning_dit", "not gradient", "velocity and no_encoder"),
    "lightningdit, gradients": ("test_lightning_dit", "gradient and none", "none and no_encoder"),
    "lightningdit, gradients, remat=full": ("test_lightning_dit", "gradient and full", None),
    "lightningdit, gradients, remat=attention": (
        "test_lightning_dit",
        "gradient and attention",
        None,
    ),
    "lightningdit, gradients, remat=dots": ("test_lightning_dit", "gradient and dots", None),
    "dinov2": ("test_dinov2", "", "preprocessing"),
    "autoencoders": ("test_autoencoders", "", ""),
    "samplers": ("test_samplers", "", "onestep"),
    "pipeline": ("test_pipeline", "", "VOSR2 and decoded"),
}


@dataclasses.dataclass(frozen=True)
class Given:
    """What a check is made with.

    Attributes:
      out: where results go.
      dry: tiny sizes.
      sources: photographs, or None.
      official: a checkout of the official repository, or None.
    """

    out: Path
    dry: bool
    sources: Path | None = None
    official: Path | None = None


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.accelerator.{name}", "{file}", *arguments)


def parity(given: Given) -> Part:
    """Goldens in float32, grey levels of short formats, attention's kernels."""
    dry = ("--dry",) if given.dry else ()
    jobs = []
    for name, (file, expression, dry_expression) in _SUITES.items():
        chosen = dry_expression if given.dry else expression
        if chosen is not None:
            command = _module("parity_suite", name, f"tests/parity/{file}.py", f"-k={chosen}")
            jobs.append(Job(name, command, environment=_EXACT))
    kernels, levels = _module("attention_kernels", *dry), _module("grey_levels", *dry)
    if not given.dry:
        jobs.append(Job("attention", kernels, environment=_SIDE_BY_SIDE))
    jobs.append(Job("grey levels", levels, environment=_SIDE_BY_SIDE))
    # Times would be disturbed by what runs beside them; the programs are on disk by then.
    timed = Job("attention, timed", (*kernels, "--timed"), environment=_SIDE_BY_SIDE)
    limited = tuple(dataclasses.replace(job, share=0.85) for job in jobs)
    return Part("parity", 0.21, (limited, (timed,)))


def sampling(given: Given) -> Part:
    """Ours, and the official network where its code is at hand; compiled side by side before."""
    dry = ("--dry",) if given.dry else ()
    warming, measuring = [], []
    for kind in KINDS:
        command = _module("sampling", kind, *dry)
        warm = Job(f"{kind}, compilation", (*command, "--warm"), 0.5, _SIDE_BY_SIDE)
        warming.append(warm)
        measuring.append((Job(kind, command, environment=_ALONE),))
    if given.official is not None:
        command = _module("official_sampling", str(given.official), *dry)
        measuring.append((Job("official 0.5B", command, environment=_SIDE_BY_SIDE),))
    return Part("sampling", 0.23, (tuple(warming), *measuring))


def _sources(given: Given) -> tuple[str, ...]:
    return () if given.sources is None else ("--sources", str(given.sources))


def training(given: Given) -> Part:
    """The 0.5B step."""
    dry = ("--dry",) if given.dry else ()
    job = Job("training", _module("training", *_sources(given), *dry), environment=_ALONE)
    return Part("training", 0.14, ((job,),))


def nano(given: Given) -> Part:
    """The nano, for all that is left."""
    dry = ("--dry",) if given.dry else ()
    command = _module("nano", str(given.out / "nano"), "{seconds}", *_sources(given), *dry)
    return Part("nano", 0.42, ((Job("nano", command),),))


def parts(given: Given) -> list[Part]:
    """All of them in their order."""
    made = [make(given) for make in (parity, sampling, training, nano)]
    return [_plainly_compiled(part) for part in made] if given.dry else made


def _plainly_compiled(part: Part) -> Part:
    def job(one: Job) -> Job:
        return dataclasses.replace(one, environment={**one.environment, **_COMPILED_PLAINLY})

    stages = tuple(tuple(job(one) for one in stage) for stage in part.stages)
    return dataclasses.replace(part, stages=stages)
