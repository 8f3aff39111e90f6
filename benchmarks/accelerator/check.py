"""Run everything that needs an accelerator; called by launch/accelerator_check.sh.

    python -m benchmarks.accelerator.check OUT [--minutes 9] [--dry] [--unpacked DIR]
        [--official DIR]

OUT gets a JSON file a part, run.log, and the trained nano in OUT/nano: eight files.
"""

import argparse
import datetime
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accelerator.jobs import run_parts
from benchmarks.accelerator.lpips_weights import unpack
from benchmarks.accelerator.plan import Given, parts

_ROOT = Path(__file__).parents[2]


def use_unpacked(folder: Path, work: Path) -> Path | None:
    """Let the jobs find what travelled: LPIPS's weights and goldens.

    Args:
      folder: an unpacked pack.
      work: for what is made of it.

    Returns:
      The folder of photographs; None where none travelled.
    """
    site = work / "site"
    unpack(folder / "vgg16.npz", site)
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), known)))
    goldens = work / "goldens"
    shutil.copytree(_ROOT / "tests" / "goldens", goldens)
    if (folder / "goldens").is_dir():
        shutil.copytree(folder / "goldens", goldens, dirs_exist_ok=True)
    os.environ["VOSR_GOLDENS"] = str(goldens)
    photographs = folder / "photographs"
    return photographs if photographs.is_dir() else None


def main() -> None:
    """All parts within the minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--dry", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--unpacked", type=Path, help="an unpacked pack of accelerator_pack.sh")
    parser.add_argument("--official", type=Path, help="a checkout of the official repository")
    options = parser.parse_args()
    facts: dict[str, Any] = {"dry": options.dry, "date": datetime.date.today().isoformat()}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.environ.setdefault("VOSR_CACHE", str(work / "cache"))
        sources = None
        if options.unpacked is not None:
            sources = use_unpacked(options.unpacked.resolve(), work)
        official = None if options.official is None else options.official.resolve()
        given = Given(options.out.resolve(), options.dry, sources, official)
        run_parts(
            parts(given),
            given.out,
            work / "jobs",
            60 * options.minutes,
            at_once=max(cores - 2, 1),
            facts=facts,
        )


if __name__ == "__main__":
    main()
