"""How fast a run goes between two logged steps, and whether its data keep up."""

from jax.sharding import Mesh

from vosr_jax.chips import peak_flops
from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.training.abstract import analytic_flops

# A share of the time at which devices wait for data that is worth a word.
_TOO_LONG = 0.1


class Rates:
    """Adds up seconds until they are taken.

    Args:
      config: of the run.
      mesh: of its devices.
    """

    def __init__(self, config: Config, mesh: Mesh):
        self._config, self._devices = config, mesh.devices.size
        self._peak = _peak_flops(mesh)
        self._flops = _flops_a_pair(config, mesh) if self._peak else 0.0
        self._said = False
        self._reset()

    def _reset(self) -> None:
        self._waits: list[float] = []
        self._seconds = 0.0
        self._steps = 0

    def waited(self, seconds: float) -> None:
        """For a batch."""
        self._waits.append(seconds)

    def stepped(self, seconds: float, steps: int = 1) -> None:
        """In a step, and how many steps that makes."""
        self._seconds += seconds
        self._steps += steps

    def take(self) -> dict[str, float]:
        """Rates since the last call; says so where the data cannot keep up."""
        total = self._seconds + sum(self._waits)
        pairs = self._steps * self._config.train.batch_size / total
        values = {
            "pairs_per_second": pairs,
            "step_seconds": total / self._steps,
            "data_wait_seconds": sum(self._waits) / len(self._waits),
            "data_wait_seconds_max": max(self._waits),
        }
        if self._flops:
            values["mfu"] = pairs * self._flops / (self._peak * self._devices)
        share = sum(self._waits) / total
        if share > _TOO_LONG and self._steps > 1 and not self._said:
            self._said = True
            say(
                f"the data cannot keep up: {share:.0%} of the time the devices waited for them; "
                f"raise data.workers (now {self._config.data.workers}), or cut large pictures "
                "into pieces beforehand (docs/data.md)"
            )
        self._reset()
        return values


def _peak_flops(mesh: Mesh) -> float:
    """Of one device in bfloat16, 0 where it is not known."""
    return peak_flops(mesh.devices.flat[0].device_kind)


def _flops_a_pair(config: Config, mesh: Mesh) -> float:
    """Counted in a trace that runs nowhere; 0, and said, where it cannot be counted."""
    try:
        return analytic_flops(config, mesh.devices.flat[0])
    except Exception as error:
        # Encoders of sizes that the config does not tell, for one.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"metrics have no mfu, a step's operations can't be counted: {reason}")
        return 0.0
