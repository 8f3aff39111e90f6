"""One file of tests/parity on the device: how near every comparison comes to its tolerance.

    python -m benchmarks.accelerator.parity_suite OUT.json NAME FILE [-k EXPRESSION]

The tests run as they are, by pytest; what they compare is noted beside their verdicts.
"""

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accelerator.record import Record, first_line


class Comparisons:
    """A plugin of pytest that notes verdicts, and in whose `record` comparisons arrive."""

    def __init__(self, record: Record, name: str):
        self._record, self._name = record, name
        self.ratios: dict[str, float] = {}
        self._failed: list[str] = []
        self._passed = self._skipped = 0

    def compare(self, case: str, error: float, tolerance: float) -> None:
        """Stand in for `goldens.record`: note the ratio, and fail where it is above 1."""
        self.ratios[case] = max(error / tolerance, self.ratios.get(case, 0.0))
        assert error <= tolerance, f"{case}: relative error {error:.2e} above {tolerance:.0e}"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test's verdict, of its setup where that is no pass."""
        if report.failed:
            self._failed.append(report.nodeid.rsplit("::", 1)[-1])
        elif report.skipped:
            self._skipped += 1
        elif report.when == "call":
            self._passed += 1
        if report.when == "teardown":
            self.write()

    def write(self) -> None:
        """The summary as of now."""
        figures: dict[str, Any] = {
            "passed": self._passed,
            "skipped": self._skipped,
            "comparisons": len(self.ratios),
        }
        if self.ratios:
            worst = max(self.ratios, key=lambda case: self.ratios[case])
            figures |= {"worst_ratio": self.ratios[worst], "worst": worst}
        if self._failed:
            figures["error"] = f"{len(self._failed)} failed, the first is {self._failed[0]}"
        self._record.note(self._name, figures)


def main() -> int:
    """Run the file; pytest's exit code where it ran no test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    parser.add_argument("file")
    parser.add_argument("-k", dest="expression", default="")
    options = parser.parse_args()
    record = Record(options.out)
    record.note_machine()
    from vosr_jax.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from tests.parity import goldens

    comparisons = Comparisons(record, options.name)
    goldens.record = comparisons.compare
    arguments = ["-q", "-p", "no:cacheprovider", "--tb=short", options.file]
    if options.expression:
        arguments += ["-k", options.expression]
    try:
        code = pytest.main(arguments, plugins=[comparisons])
    except Exception as error:
        record.note(options.name, {"error": first_line(error)})
        return 1
    # Failed tests are in the figures.
    return 0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(code)


if __name__ == "__main__":
    raise SystemExit(main())
