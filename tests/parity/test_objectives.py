"""Objectives against the official ones from recorded draws: loss and every gradient."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tests.parity import goldens
from tests.parity.test_lightning_dit import settings_of
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.objectives import flow_matching, loss_of, rcgm, shortcut
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.timesteps import TimeSettings
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.weights import entries, from_official
from vosr_jax.parameters.tensors import to_official


def network(name: str, *, r_embedding: bool) -> LightningDiT:
    """The objectives' multistep_model or onestep_model."""
    folder = goldens.folder("objectives")
    config = goldens.read_json(folder / "config.json") | {"auxiliary_time_cond": r_embedding}
    path = folder / f"{name}.safetensors"
    return from_official(goldens.arrays(path), settings_of(config), str(path)).network()


def replay(arrays: dict, prefix: str = "") -> tuple[dict, dict]:
    """(batch, draws) of recorded arrays, NHWC, with the names that objectives read."""

    def inside(array):
        return jnp.asarray(goldens.nhwc(array) if array.ndim == 4 else array)

    batch = {
        "hr_latent": inside(arrays[prefix + "hq_latent"]),
        "lq_latent": inside(arrays[prefix + "lq_latent"]),
        "visual_tokens": inside(arrays[prefix + "visual_tokens"]),
    }
    start = prefix + "draw/"
    draws = {k.removeprefix(start): inside(v) for k, v in arrays.items() if k.startswith(start)}
    return batch, draws


def guidance_settings(case: dict) -> GuidanceSettings:
    """Guidance of a recorded case; what it leaves out has its official default."""
    return GuidanceSettings(
        drop_rate=case["cfg_ratio"],
        scale=case["cfg_scale"],
        condition_strength=tuple(case.get("cond_strength_aelq_list", (5.0, 1.0))),
        interval=(case.get("t_start", 0.0), case.get("t_end", 1.0)),
    )


def flow_matching_settings(case: dict) -> flow_matching.FlowMatchingSettings:
    """Settings of a recorded flow-matching case."""
    kind, mu, sigma = case["time_dist"]
    return flow_matching.FlowMatchingSettings(
        time=TimeSettings(kind, mu, sigma), guidance=guidance_settings(case)
    )


def shared(case: dict) -> dict:
    """What the distillation objectives share; their times are uniform whatever `time_dist` is."""
    return dict(
        guidance=guidance_settings(case),
        weak_strength=case.get("weak_cond_strength_aelq", 0.1),
        average_weight=case.get("u_weight", 1.0),
    )


def rcgm_settings(case: dict) -> rcgm.RCGMSettings:
    """Settings of a recorded case of recursive consistency."""
    return rcgm.RCGMSettings(
        **shared(case),
        delta_t=case.get("rcgm_delta_t", 0.01),
        n_steps=case.get("rcgm_n_steps", 2),
    )


def shortcut_settings(case: dict) -> shortcut.ShortcutSettings:
    """Settings of a recorded case of shortcut distillation."""
    return shortcut.ShortcutSettings(**shared(case))


# Recorded objective: (its settings, whether the network has r, whether it has a teacher).
KINDS = {
    "fm": (flow_matching_settings, False, False),
    "rcgm": (rcgm_settings, True, True),
    "rcgm_self": (rcgm_settings, True, False),
    "shortcut": (shortcut_settings, True, True),
    "shortcut_self": (shortcut_settings, True, False),
}


def cases() -> list[str]:
    path = goldens.ROOT / "objectives" / "cases.json"
    return list(goldens.read_json(path)) if path.exists() else ["missing"]


@pytest.mark.parametrize("case", cases())
def test_loss_and_gradients_are_the_official_ones(case: str):
    folder = goldens.folder("objectives")
    arrays = goldens.arrays(folder / f"{case}.npz")
    batch, draws = replay(goldens.arrays(folder / "batch.npz") | arrays)
    recorded = goldens.read_json(folder / "cases.json")[case]
    settings_of_case, r_embedding, has_teacher = KINDS[recorded["objective"]]
    settings = settings_of_case(recorded)
    name = "onestep_model" if r_embedding else "multistep_model"
    model = network(name, r_embedding=r_embedding)
    teacher = None
    if has_teacher:
        teacher = CachedDenoiser(network("multistep_model", r_embedding=False), Parameterization())
    graph, state = nnx.split(model)

    @jax.jit
    @jax.value_and_grad
    def loss(state):
        student = CachedDenoiser(nnx.merge(graph, state), Parameterization())
        return loss_of(settings)(student, batch, None, settings, teacher_fn=teacher, draws=draws)[0]

    value, gradients = loss(state)
    goldens.check(f"objectives/{case}/loss", value, arrays["loss"], 2e-5)
    ours = to_official(nnx.merge(graph, gradients), entries(model.settings))
    golden = {k.removeprefix("grad/"): v for k, v in arrays.items() if k.startswith("grad/")}
    goldens.check_gradients(f"objectives/{case}", ours, golden)
