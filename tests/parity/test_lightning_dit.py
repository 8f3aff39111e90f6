"""The denoiser against the official one: forward, other sizes, and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.parity import goldens
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.models.lightning_dit.weights import entries, from_official
from vosr_jax.parameters.tensors import to_official

CASES = goldens.cases("lightningdit", "config.json")


def settings_of(config: dict) -> LightningDiTSettings:
    """Constructor arguments of the official network as our settings."""
    return LightningDiTSettings(
        latent_channels=config["out_channels"],
        latent_size=config["input_size"],
        patch_size=config["patch_size"],
        width=config["hidden_size"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        token_width=config["z_dims"],
        token_hidden_ratio=config["encdim_ratio"],
        r_embedding=config.get("auxiliary_time_cond", False),
        qk_norm=config["use_qknorm"],
        swiglu=config["use_swiglu"],
        rotary=config["use_rope"],
        rms_norm=config["use_rmsnorm"],
    )


def load(case: str, **options) -> tuple[LightningDiT, dict[str, np.ndarray]]:
    """The golden network of a case and its arrays."""
    folder = goldens.folder("lightningdit") / case
    settings = settings_of(goldens.read_json(folder / "config.json"))
    path = folder / "model.safetensors"
    model = from_official(goldens.arrays(path), settings, str(path), **options).network()
    return model, goldens.arrays(folder / "io.npz")


def run(model: LightningDiT, io: dict, x, tokens) -> jax.Array:
    condition, noisy = jnp.split(goldens.nhwc(x), 2, axis=-1)
    r = jnp.asarray(io["r"]) if model.settings.r_embedding else None
    return model(condition, noisy, jnp.asarray(io["t"]), tokens, r)


@pytest.mark.parametrize("case", CASES)
def test_velocity_is_the_official_one_at_every_size(case: str):
    model, io = load(case)
    tokens = io.get("z")
    for x, y in [("x", "y"), *((k, k.replace("x_", "y_")) for k in io if k.startswith("x_flex"))]:
        ours = run(model, io, io[x], tokens)
        goldens.check(f"lightningdit/{case}/{y}", ours, goldens.nhwc(io[y]), 2e-5)
    if "y_zero_z" in io:
        ours = run(model, io, io["x"], np.zeros_like(tokens))
        goldens.check(f"lightningdit/{case}/y_zero_z", ours, goldens.nhwc(io["y_zero_z"]), 2e-5)


@pytest.mark.parametrize("remat", ["none", "full", "attention", "dots"])
@pytest.mark.parametrize("case", CASES)
def test_every_gradient_is_the_official_one(case: str, remat: str):
    model, io = load(case, remat=remat)
    graph, state = nnx.split(model)
    cotangent = goldens.nhwc(io["cotangent"])

    @jax.jit
    def gradients(state, x):
        def total(state, x):
            return jnp.sum(run(nnx.merge(graph, state), io, x, io.get("z")) * cotangent)

        return jax.grad(total, argnums=(0, 1))(state, x)

    parameters, x = gradients(state, jnp.asarray(io["x"]))
    ours = to_official(nnx.merge(graph, parameters), entries(model.settings))
    golden = {k.removeprefix("grad/"): v for k, v in io.items() if k.startswith("grad/")}
    goldens.check(f"lightningdit/{case}/grad_x", x, io["grad_x"], 1e-4)
    goldens.check_gradients(f"lightningdit/{case}", ours, golden)


@pytest.mark.parametrize("case", CASES)
def test_padding_the_swiglu_changes_nothing_and_is_dropped_on_export(case: str):
    plain, io = load(case)
    settings = plain.settings
    if not settings.swiglu:
        pytest.skip("no SwiGLU in this case")
    path = goldens.folder("lightningdit") / case / "model.safetensors"
    wide = LightningDiTSettings(**{**vars(settings), "swiglu_multiple": 128})
    model = from_official(goldens.arrays(path), wide, str(path)).network()
    assert model.blocks.mlp.gate_up.kernel.shape[-1] % 128 == 0
    np.testing.assert_allclose(
        run(model, io, io["x"], io.get("z")), run(plain, io, io["x"], io.get("z")), atol=1e-6
    )
    for name, array in to_official(model, entries(wide)).items():
        np.testing.assert_array_equal(array, goldens.arrays(path)[name])
