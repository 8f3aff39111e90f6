"""The denoiser: initialization, sizes, and that its ways of running agree."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.models.rotary import rotary_table, rotate
from vosr_jax.parameters.blueprint import Blueprint, flatten

SMALL = LightningDiTSettings(
    latent_size=8, width=32, depth=3, heads=2, token_width=12, r_embedding=True
)


@functools.cache
def initial(settings: LightningDiTSettings, seed: int = 0) -> dict[str, jax.Array]:
    return Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(seed))).initialize()


@functools.cache
def network(settings: LightningDiTSettings = SMALL, seed: int = 0, **options) -> LightningDiT:
    """A network whose zero-initialized parameters are stirred, so that every part shows."""
    blueprint = Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(seed), **options))
    rng = np.random.default_rng(seed)
    stirred = {
        name: value + 0.05 * rng.normal(size=value.shape).astype(np.float32)
        for name, value in initial(settings, seed).items()
    }
    return blueprint.merge(stirred)


def inputs(settings: LightningDiTSettings = SMALL, height: int = 8, width: int = 8) -> dict:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    latent = (2, height, width, settings.latent_channels)
    given = {"condition": normal(*latent), "noisy": normal(*latent), "t": jnp.array([0.3, 0.9])}
    if settings.token_width:
        given["visual_tokens"] = normal(2, 5, settings.token_width)
    if settings.r_embedding:
        given["r"] = jnp.array([0.1, 0.2])
    return given


def millions(build) -> float:
    return Blueprint(build).count() / 1e6


def released_total(settings, autoencoder, encoder) -> int:
    """Millions of parameters of denoiser, autoencoder and encoder, rounded up."""
    parts = (
        lambda: LightningDiT(settings, rngs=nnx.Rngs(0)),
        lambda: autoencoder(rngs=nnx.Rngs(0)),
        lambda: DINOv2(encoder, rngs=nnx.Rngs(0)),
    )
    return math.ceil(sum(millions(part) for part in parts))


@pytest.mark.parametrize(("r_embedding", "total"), [(False, 619), (True, 621)])
def test_the_half_billion_preset_has_the_released_number_of_parameters(r_embedding, total):
    settings = LightningDiTSettings.vosr_0_5b(r_embedding=r_embedding)
    autoencoder = functools.partial(SDAutoencoder, SDSettings.sd21_light())
    assert released_total(settings, autoencoder, DINOv2Settings.vit_b()) == total


@pytest.mark.parametrize(("r_embedding", "total"), [(False, 1743), (True, 1746)])
def test_the_large_preset_has_the_released_number_of_parameters(r_embedding, total):
    settings = LightningDiTSettings.vosr_1_4b(r_embedding=r_embedding)
    autoencoder = functools.partial(QwenAutoencoder, QwenSettings())
    assert released_total(settings, autoencoder, DINOv2Settings.vit_l()) == total


def assert_uniform(kernel: np.ndarray, bound: float) -> None:
    """Fills [-bound, bound] evenly."""
    kernel = np.asarray(kernel, np.float64)
    assert np.abs(kernel).max() <= bound
    assert np.abs(kernel).max() > 0.995 * bound
    np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3), rtol=0.02)
    assert abs(kernel.mean()) < 5 * kernel.std() / math.sqrt(kernel.size)


def test_initial_parameters_have_the_official_distributions():
    settings = dataclasses.replace(SMALL, width=96, heads=4, depth=4, token_width=48)
    parameters = initial(settings)
    width, hidden = settings.width, settings.swiglu_width

    def bound(fan_in: int, fan_out: int) -> float:
        return math.sqrt(6 / (fan_in + fan_out))

    fused = {
        "blocks.attn.qkv": bound(width, 3 * width),
        "blocks.attn.proj": bound(width, width),
        "blocks.cross_attn.query": bound(width, width),
        "blocks.cross_attn.value": bound(width, width),
        "blocks.mlp.gate_up": bound(width, 2 * hidden),
        "blocks.mlp.out": bound(hidden, width),
        "patch_embed": bound(4 * 2 * settings.latent_channels, width),
        "token_mlp.hidden": bound(48, 3 * width),
        "token_mlp.out": bound(3 * width, width),
    }
    for name, limit in fused.items():
        assert_uniform(parameters[f"{name}.kernel"], limit)
    time = [f"{p}_embedding.{layer}" for p in "tr" for layer in ("hidden", "out")]
    for name in [*time, "modulation"]:
        kernel = np.asarray(parameters[f"{name}.kernel"])
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.03)
        assert np.abs(kernel).max() > 0.06, "a normal distribution has tails"
    for name in ("final.linear.kernel", "final.modulation.kernel"):
        assert not parameters[name].any()
    table = np.asarray(parameters["blocks.scale_shift_table"])
    np.testing.assert_allclose(table.std(), 1 / math.sqrt(width), rtol=0.05)
    for name, value in parameters.items():
        if name.endswith("bias"):
            assert not value.any(), name
        if name.endswith("weight"):
            assert (value == 1).all(), name
        if name.startswith("blocks") and name.endswith("kernel"):
            assert (value[0] != value[1]).all(), f"{name} starts alike in all blocks"


def test_padding_the_swiglu_keeps_the_distribution_of_what_is_real():
    padded = dataclasses.replace(SMALL, swiglu_multiple=64)
    parameters = initial(padded)
    unpadded = padded.swiglu_width
    kernel = parameters["blocks.mlp.gate_up.kernel"]
    assert kernel.shape[-1] == 128 and unpadded == 85
    assert not kernel[..., unpadded:].any() and kernel[..., unpadded - 1].any()
    assert not parameters["blocks.mlp.out.kernel"][:, unpadded:].any()
    assert_uniform(kernel[..., :unpadded], math.sqrt(6 / (32 + 2 * unpadded)))


def test_scan_equals_a_plain_loop_over_the_blocks():
    model, given = network(), inputs()
    time = model.t_embedding(given["t"])
    time = time + (given["t"] - given["r"])[:, None] * model.r_embedding(given["r"])
    modulation = model.modulation(jax.nn.silu(time))
    context = model.token_mlp(model.token_norm(given["visual_tokens"]), jnp.float32)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 16, 32)), jnp.float32)
    graph, stacked = nnx.split(model.blocks)
    y = x
    for layer in range(SMALL.depth):
        block = nnx.merge(graph, jax.tree.map(lambda p, i=layer: p[i], stacked))
        cross = functools.partial(block.cross_attn, context=context, dtype=jnp.float32)
        y = block(y, modulation, cross, rotary_table((4, 4), 4, 16), jnp.float32)
    scanned, _ = model._run_blocks(x, modulation, (4, 4), context)
    assert np.abs(y - x).max() > 0.1
    np.testing.assert_allclose(scanned, y, atol=2e-5)


ABLATED = dataclasses.replace(
    SMALL, r_embedding=False, qk_norm=False, swiglu=False, rotary=False, rms_norm=False
)
DETAILED = dataclasses.replace(SMALL, token_width=None, detail_width=8)
PIXELS = dataclasses.replace(DETAILED, detail_stem_blocks=2, pixel_width=4, pixel_scale=2)


@pytest.mark.parametrize("settings", [SMALL, ABLATED, DETAILED, PIXELS])
def test_what_is_remembered_equals_the_plain_formula(settings):
    model, given = network(settings), inputs(settings)
    times = given["t"], given.get("r")
    latents = given["condition"], given["noisy"]
    context = model.token_context(given.get("visual_tokens"))
    memory = model.cross_kv(context)
    time = model.time_features(*times)
    plain = model(**given)
    assert np.abs(plain).max() > 0.1
    np.testing.assert_allclose(model.denoise(*latents, time, memory), plain, atol=1e-5)

    weak = given | {"condition": 0.1 * given["condition"]}
    if settings.token_width:
        weak["visual_tokens"] = 0 * given["visual_tokens"]
    conditions = given["condition"], weak["condition"]
    for reading in (memory, context):
        both = model.denoise_both(
            *conditions, given["noisy"], time, reading, model.null_cross_attention()
        )
        np.testing.assert_allclose(both[0], plain, atol=1e-5)
        np.testing.assert_allclose(both[1], model(**weak), atol=1e-5)


def test_one_time_serves_all_rows():
    model, given = network(), inputs()
    same = given | {"t": jnp.full(2, 0.3), "r": jnp.full(2, 0.1)}
    time = model.time_features(jnp.array([0.3]), jnp.array([0.1]))
    memory = model.cross_kv(model.token_context(given["visual_tokens"]))
    ours = model.denoise(given["condition"], given["noisy"], time, memory)
    np.testing.assert_allclose(ours, model(**same), atol=1e-5)


def test_the_weak_branch_computes_neither_tokens_nor_attention_to_them():
    """Matrix products that reading a compiled program finds, by the shapes that they have."""
    model, given = network(), inputs()
    tokens = given["visual_tokens"]
    memory, constant = jax.jit(
        lambda z: (model.cross_kv(model.token_context(z)), model.null_cross_attention())
    )(tokens)
    time = model.time_features(given["t"], given["r"])

    def products(function, *arguments) -> list[int]:
        """Rows of the products that read the visual tokens or what is made of them."""
        found = []

        def search(jaxpr):
            for equation in jaxpr.eqns:
                if equation.primitive.name == "dot_general":
                    shapes = [v.aval.shape for v in equation.invars]
                    if any(5 in shape for shape in shapes):
                        found.append(shapes[0][0])
                for inner in jax.core.jaxprs_in_params(equation.params):
                    search(inner)

        search(jax.make_jaxpr(function)(*arguments).jaxpr)
        return found

    # Scores and weighted values, of the two full rows alone.
    latents = given["condition"], given["condition"], given["noisy"]
    assert products(lambda m: model.denoise_both(*latents, time, m, constant), memory) == [2, 2]
    # Beside them two layers of the tokens' MLP, keys and values.
    assert len(products(lambda z: model(**given | {"visual_tokens": z}), tokens)) == 6


def test_remat_policies_give_the_same_gradients():
    given = inputs()

    def gradients(remat: str) -> dict:
        model = network(remat=remat)
        graph, state = nnx.split(model)
        total = jax.jit(jax.grad(lambda state: (nnx.merge(graph, state)(**given) ** 2).sum()))
        return flatten(nnx.merge(graph, total(state)))

    plain = gradients("none")
    for remat in ("full", "attention", "dots", "offload"):
        for name, gradient in gradients(remat).items():
            scale = np.abs(plain[name]).max()
            np.testing.assert_allclose(gradient, plain[name], atol=1e-4 * scale, err_msg=name)


def test_bfloat16_is_close_to_float32_and_stays_float32_outside():
    given = inputs()
    exact, half = network()(**given), network(dtype=jnp.bfloat16)(**given)
    assert half.dtype == jnp.float32
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.03


def test_rectangles_of_any_multiple_of_the_patch_run_and_others_are_refused():
    model = network()
    given = inputs(height=6, width=10)
    assert model(**given).shape == (2, 6, 10, SMALL.latent_channels)
    with pytest.raises(ValueError, match="multiples of 2"):
        model(**inputs(height=7))


def test_a_picture_on_its_side_gives_the_result_on_its_side_only_if_axes_are_apart():
    """Rows and columns turn different halves of a head, so a transposed picture differs."""
    model, given = network(), inputs()
    turned = given | {k: given[k].swapaxes(1, 2) for k in ("condition", "noisy")}
    assert np.abs(model(**turned).swapaxes(1, 2) - model(**given)).max() > 1e-3


def test_missing_inputs_are_named():
    given = inputs()
    with pytest.raises(ValueError, match="visual_tokens"):
        network()(**{k: v for k, v in given.items() if k != "visual_tokens"})
    with pytest.raises(ValueError, match="interval's end r"):
        network()(**{k: v for k, v in given.items() if k != "r"})
    time = network().time_features(given["t"], given["r"])
    with pytest.raises(ValueError, match="context"):
        network().denoise(given["condition"], given["noisy"], time)
    with pytest.raises(ValueError, match="both or neither"):
        context = network().token_context(given["visual_tokens"])
        latents = given["condition"], given["condition"], given["noisy"]
        network().denoise_both(*latents, time, context)


def test_r_changes_nothing_where_it_equals_t():
    model, given = network(), inputs()
    plain = network(dataclasses.replace(SMALL, r_embedding=False))
    state = flatten(plain)
    same = Blueprint(lambda: plain).merge({k: flatten(model)[k] for k in state})
    without_r = {k: v for k, v in given.items() if k != "r"}
    at_t = model(**given | {"r": given["t"]})
    np.testing.assert_allclose(at_t, same(**without_r), atol=1e-6)
    assert np.abs(model(**given) - at_t).max() > 1e-3


def test_detailer_starts_at_zero_and_carries_single_pixels_past_the_patches():
    settings = dataclasses.replace(
        SMALL, token_width=None, r_embedding=False, detail_width=8, patch_size=4
    )
    given = inputs(settings)
    stirred = network(settings)
    fresh = Blueprint(lambda: stirred).merge(initial(settings))
    assert not fresh(**given).any()
    y = stirred(**given)
    assert y.shape == (2, 8, 8, 4) and np.abs(y).max() > 1e-2

    def corner(noisy: jax.Array) -> jax.Array:
        return stirred(given["condition"], noisy, given["t"])[0, 3, 3, 0]

    reach = np.abs(jax.grad(corner)(given["noisy"])[0]).sum(-1)
    # The pixel across the patch border counts for as much as the one inside.
    assert reach[4, 4] > 0.2 * reach[2, 2] > 0


def test_rotary_positions_span_the_training_grid_at_every_size():
    cosine, sine = rotary_table((8, 4), 4, 16)
    trained, _ = rotary_table((4, 4), 4, 16)
    rows = cosine.reshape(8, 4, 16)
    np.testing.assert_allclose(rows[::2], trained.reshape(4, 4, 16), atol=1e-6)
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=1e-6)
    integer, _ = rotary_table((8, 4), 4, 16, rescale=False)
    np.testing.assert_allclose(integer.reshape(8, 4, 16)[:4], trained.reshape(4, 4, 16), atol=1e-6)
    assert np.abs(integer.reshape(8, 4, 16)[4:] - rows[4:]).max() > 0.1


def test_rotation_makes_scores_depend_on_distance_alone():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 16)).astype(np.float32)

    def score(a: int, b: int) -> float:
        table = rotary_table((6, 1), 6, 16)
        tokens = jnp.zeros((1, 6, 1, 16)).at[0, a].set(query)
        others = jnp.zeros((1, 6, 1, 16)).at[0, b].set(key)
        return float((rotate(tokens, table)[0, a] * rotate(others, table)[0, b]).sum())

    assert score(0, 2) == pytest.approx(score(3, 5), abs=1e-4)
    assert abs(score(0, 2) - score(0, 3)) > 1e-2


def test_one_full_width_step_of_two_blocks_runs():
    settings = LightningDiTSettings.vosr_0_5b(depth=2, latent_size=16)
    model = LightningDiT(settings, rngs=nnx.Rngs(0), remat="full")
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)
    latent = jnp.asarray(rng.normal(size=(1, 16, 16, 4)), jnp.float32)
    tokens = jnp.asarray(rng.normal(size=(1, 32, 768)), jnp.float32)

    @jax.jit
    def step(state):
        def loss(state):
            velocity = nnx.merge(graph, state)(latent, latent, jnp.ones(1) / 2, tokens)
            return jnp.mean((velocity - latent) ** 2)

        value, gradient = jax.value_and_grad(loss)(state)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, state, gradient)

    first, state = step(state)
    second, _ = step(state)
    assert np.isfinite(first) and second < first
