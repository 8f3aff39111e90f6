"""Where the goldens lie, and how far from them is too far.

`VOSR_GOLDENS` names the folder; where it is unset, `tests/goldens`, in which a missing
subfolder skips its tests. Every comparison is written to `parity.json` in the folder named
by `VOSR_PARITY_REPORT`, where that is set.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(os.environ.get("VOSR_GOLDENS") or Path(__file__).parents[1] / "goldens")


def folder(name: str) -> Path:
    """The goldens' subfolder `name`; skips, or fails where VOSR_GOLDENS promises it."""
    path = ROOT / name
    if not path.is_dir():
        if os.environ.get("VOSR_GOLDENS"):
            pytest.fail(f"VOSR_GOLDENS is set, but {path} does not exist")
        pytest.skip(f"no goldens in {path}; set VOSR_GOLDENS to a folder that has them")
    return path


def cases(name: str, marker: str) -> list[str]:
    """Names of the subfolders of `name` that hold the file `marker`, for parametrizing tests."""
    found = sorted(path.parent.name for path in (ROOT / name).glob(f"*/{marker}"))
    return found or ["missing"]


def read_json(path: Path) -> dict:
    """A json file as a dictionary."""
    return json.loads(path.read_text())


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file, or of a safetensors file."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    with np.load(path) as data:
        return {key: data[key] for key in data.files}


def relative_error(ours: np.ndarray, golden: np.ndarray, floor: float = 0.0) -> float:
    """Largest absolute difference over the golden's largest absolute value, or over `floor`.

    The floor is for arrays that vanish in exact arithmetic and hold rounding alone.
    """
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    assert ours.shape == golden.shape, f"{ours.shape} against {golden.shape}"
    if not np.isfinite(ours).all():
        return float("inf")
    largest = max(np.abs(golden).max(initial=0.0), floor)
    return float(np.abs(ours - golden).max() / largest) if largest else float(np.abs(ours).max())


def record(case: str, error: float, tolerance: float) -> None:
    """Assert error <= tolerance and note the case in parity.json.

    Args:
      case: unique name of the comparison, e.g. "lightningdit/sd2_multistep/y".
      error: the measured relative error.
      tolerance: the largest one allowed.
    """
    report = os.environ.get("VOSR_PARITY_REPORT")
    if report:
        path = Path(report) / "parity.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        noted = json.loads(path.read_text()) if path.exists() else {}
        noted[case] = max(error, noted.get(case, 0.0))
        path.write_text(json.dumps(noted, indent=1, sort_keys=True))
    assert error <= tolerance, f"{case}: relative error {error:.2e} above {tolerance:.0e}"


def check(case: str, ours, golden: np.ndarray, tolerance: float, floor: float = 0.0) -> None:
    """Compare and record one array."""
    record(case, relative_error(ours, golden, floor), tolerance)


def check_gradients(case: str, ours: dict, golden: dict, tolerance: float = 1e-4) -> None:
    """Compare and record every gradient by name.

    A key's bias without key norm has no gradient in exact arithmetic (softmax does not see a
    common shift): a golden gradient 1e-6 below the largest is rounding, and ours may differ
    from it by 1e-7 of the largest.
    """
    assert ours.keys() == golden.keys()
    largest = max(float(np.abs(gradient).max()) for gradient in golden.values())
    for name, gradient in golden.items():
        vanishes = np.abs(gradient).max() < 1e-6 * largest
        floor = 1e-3 * largest if vanishes else 0.0
        check(f"{case}/grad/{name}", ours[name], gradient, tolerance, floor)


def nhwc(array: np.ndarray) -> np.ndarray:
    """[B, C, H, W] to [B, H, W, C]."""
    return np.transpose(array, (0, 2, 3, 1))
