"""Objectives against the official ones from recorded draws: loss and every gradient."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tests.parity import goldens
from tests.parity.test_lightning_dit import settings_of
from vosr_jax.diffusion.conditions import GuidanceSettings
from vosr_jax.diffusion.objectives import flow_matching
from vosr_jax.diffusion.timesteps import TimeSettings
from vosr_jax.models.lightning_dit import LightningDiT
from vosr_jax.weights.lightning_dit import entries, from_official
from vosr_jax.weights.tensors import to_official


def network(name: str, *, r_embedding: bool) -> LightningDiT:
    """The objectives' multistep_model or onestep_model."""
    folder = goldens.folder("objectives")
    config = goldens.read_json(folder / "config.json") | {"auxiliary_time_cond": r_embedding}
    path = folder / f"{name}.safetensors"
    return from_official(goldens.arrays(path), settings_of(config), str(path))


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


def flow_matching_settings(case: dict) -> flow_matching.FlowMatchingSettings:
    """Settings of a recorded flow-matching case."""
    kind, mu, sigma = case["time_dist"]
    return flow_matching.FlowMatchingSettings(
        time=TimeSettings(kind, mu, sigma),
        guidance=GuidanceSettings(drop_rate=case["cfg_ratio"], scale=case["cfg_scale"]),
    )


def flow_matching_cases() -> list[str]:
    path = goldens.ROOT / "objectives" / "cases.json"
    if not path.exists():
        return ["missing"]
    return [k for k, v in goldens.read_json(path).items() if v["objective"] == "fm"]


@pytest.mark.parametrize("case", flow_matching_cases())
def test_flow_matching_loss_and_gradients_are_the_official_ones(case: str):
    folder = goldens.folder("objectives")
    arrays = goldens.arrays(folder / f"{case}.npz")
    batch, draws = replay(goldens.arrays(folder / "batch.npz") | arrays)
    settings = flow_matching_settings(goldens.read_json(folder / "cases.json")[case])
    model = network("multistep_model", r_embedding=False)
    graph, state = nnx.split(model)

    @jax.jit
    @jax.value_and_grad
    def loss(state):
        return flow_matching.loss(nnx.merge(graph, state), batch, None, settings, draws=draws)[0]

    value, gradients = loss(state)
    goldens.check(f"objectives/{case}/loss", value, arrays["loss"], 2e-5)
    ours = to_official(nnx.merge(graph, gradients), entries(model.settings))
    golden = {k.removeprefix("grad/"): v for k, v in arrays.items() if k.startswith("grad/")}
    goldens.check_gradients(f"objectives/{case}", ours, golden)
