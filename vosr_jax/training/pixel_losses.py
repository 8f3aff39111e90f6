"""Optional loss terms for training on pixels: a perceptual and an adversarial one.

VOSR has neither; its autoencoder was trained with a perceptual one.

The perceptual term is the LPIPS of the predicted endpoint. Its network is VGG16, so training never
optimizes the AlexNet LPIPS that evaluations report.

The adversarial term is for the last part of training. A patch discriminator learns to tell the
truth from the network's predicted image, each beside the enlarged input. The network learns to
fool it. Both compare the two images of a row (a relativistic pair): the discriminator minimizes
softplus(fake - real), the network softplus(real - fake). The discriminator's parameters and
optimizer state are part of the train state.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from vosr_jax.config import Config
from vosr_jax.diffusion.objectives import Settings, ends_at_a_picture
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.models import autoencoders
from vosr_jax.models.discriminator import PatchDiscriminator
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.optimizer import clip_by_global_norm


@dataclasses.dataclass(frozen=True)
class PerceptualTerm:
    """LPIPS of the predicted endpoint, over the rows that the objective wants.

    The compared rows and their weights are chosen for the whole batch before it is divided. The
    term is therefore the same for any number of microbatches.

    Attributes:
      frozen: the frozen nets; the autoencoder decodes.
      objective: settings that decide which rows are wanted.
      rows: number of wanted rows compared per batch, the first ones; 0: all.
      crop: side of the central window that is compared, pixels.
      start: first row and column of that window.
      parts: number of parts of a batch.
    """

    frozen: FrozenNets
    objective: Settings
    rows: int
    crop: int
    start: int
    parts: int

    def shares(self, key: Array, index: Array) -> Array:
        """Weight of every row's distance, [B]: 0 for a row that is not compared.

        The mean over B of distance times share is the mean distance of the rows compared.

        Args:
          key: the run's key.
          index: uint32 [B, 2] of the whole batch.
        """
        wanted = ends_at_a_picture(self.objective, key, index)
        if self.rows:
            wanted &= jnp.cumsum(wanted) <= self.rows
        return wanted * (len(wanted) / jnp.maximum(jnp.sum(wanted), 1))

    def __call__(
        self, weights: dict, latent: Array, inputs: dict, wanted: Array | None = None
    ) -> Array:
        """Distances times shares of one part, [B].

        Args:
          weights: "autoencoder" and "lpips".
          latent: [B, h, w, C], predicted.
          inputs: "hr_image" [B, H, W, 3] and "perceptual_share" [B].
          wanted: not used; the shares already select the rows.
        """
        del wanted
        share, truth = inputs["perceptual_share"], inputs["hr_image"]
        size = len(share)
        most = min(self.rows or size, size)
        at_once = max((self.rows or size * self.parts) // self.parts, 1)
        chosen = jnp.argsort(share == 0)[:most]  # stable: those that count come first
        result = jnp.zeros(size)
        if most <= at_once:
            counted = self._compared(weights, latent[chosen], truth[chosen], share[chosen])
            return result.at[chosen].set(counted)
        # A part may have more of the compared rows than others. Groups without one are skipped,
        # so all parts together compare hardly more rows than a single part would.
        groups = -(-most // at_once)
        chosen = jnp.resize(chosen, (groups * at_once,))
        counts = share[chosen] * (jnp.arange(groups * at_once) < most)

        def group(_, rows: tuple[Array, Array]):
            places, share = rows
            compared = jax.checkpoint(self._compared)
            counted = jax.lax.cond(
                jnp.any(share > 0),
                lambda: compared(weights, latent[places], truth[places], share),
                lambda: jnp.zeros(at_once),
            )
            return None, counted

        divided = (chosen.reshape(groups, at_once), counts.reshape(groups, at_once))
        _, counted = jax.lax.scan(group, None, divided)
        return result.at[chosen].add(counted.reshape(-1))

    def _compared(self, weights: dict, latent: Array, truth: Array, share: Array) -> Array:
        autoencoder = self.frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent)
        window = slice(self.start, self.start + self.crop)
        distances = lpips(weights["lpips"], image[:, window, window], truth[:, window, window])
        return jnp.where(share > 0, distances * share, 0.0)


def perceptual_term(config: Config, frozen: FrozenNets) -> PerceptualTerm | None:
    """The term of a config; None if its weight is 0."""
    objective = config.objective
    if not objective.perceptual_weight:
        return None
    return PerceptualTerm(
        frozen,
        config.objective_settings(),
        rows=objective.perceptual_rows,
        crop=objective.perceptual_crop,
        start=(config.data.crop_size - objective.perceptual_crop) // 2,
        parts=config.train.microbatches,
    )


def perceptual_weights(config: Config) -> dict:
    """The frozen weights that the term needs; {} if its weight is 0."""
    if not config.objective.perceptual_weight:
        return {}
    return {"lpips": load_lpips("vgg")}


Gradient = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The discriminator and how it is trained.

    Attributes:
      network: blueprint of the discriminator.
      optimizer: its own optax transformation.
      weight: of the network's term.
      frozen: the frozen nets, whose autoencoder decodes latents.
    """

    network: Blueprint
    optimizer: optax.GradientTransformation
    weight: float
    frozen: FrozenNets

    def new_state(self) -> dict[str, Any]:
        """Fresh parameters and optimizer state, as the train state holds them."""
        parameters = self.network.initialize()
        return {"parameters": parameters, "optimizer": self.optimizer.init(parameters)}

    def term(
        self, parameters: Gradient, weights: dict, latent: Array, inputs: dict[str, Array]
    ) -> tuple[Array, dict[str, Array], Gradient]:
        """The term added to the network's loss, and the discriminator's gradient.

        Args:
          parameters: of the discriminator.
          weights: of the frozen nets.
          latent: [B, h, w, C], predicted by the network.
          inputs: "hr_image" [B, H, W, 3] in [-1, 1] and "lq_latent".

        Returns:
          (weighted term [], metrics with one value per row, the discriminator's gradient).
        """
        autoencoder = self.frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent)
        lq = autoencoders.decode(autoencoder, inputs["lq_latent"])
        truth = inputs["hr_image"]

        def scores(parameters: Gradient, image: Array) -> tuple[Array, Array]:
            network = self.network.merge(parameters)
            return network(image, lq), network(truth, lq)

        fake, real = scores(jax.lax.stop_gradient(parameters), image)
        rows = jnp.mean(jax.nn.softplus(real - fake), axis=(1, 2))

        def own_loss(parameters: Gradient) -> tuple[Array, Array]:
            fake, real = scores(parameters, jax.lax.stop_gradient(image))
            rows = jnp.mean(jax.nn.softplus(fake - real), axis=(1, 2))
            return jnp.mean(rows), rows

        own = jax.lax.stop_gradient(parameters)
        gradient, own_rows = jax.grad(own_loss, has_aux=True)(own)
        metrics = {"adversarial_rows": rows, "discriminator_rows": own_rows}
        return self.weight * jnp.mean(rows), metrics, jax.lax.stop_gradient(gradient)

    def update(self, state: dict[str, Any], gradient: Gradient) -> dict[str, Any]:
        """Apply the discriminator's optimizer step."""
        parameters = state["parameters"]
        updates, optimizer = self.optimizer.update(gradient, state["optimizer"], parameters)
        return {"parameters": optax.apply_updates(parameters, updates), "optimizer": optimizer}


def make_adversary(config: Config, frozen: FrozenNets | None) -> Adversary | None:
    """Make the adversary of a config; None if its weight is 0."""
    o, rates = config.objective, config.optimizer
    if not o.adversarial_weight:
        return None
    assert frozen is not None, "an adversary looks at decoded pictures"
    seed = config.seed
    network = Blueprint(
        lambda: PatchDiscriminator(o.adversarial_width, rngs=nnx.Rngs(params=seed + 1))
    )
    # No momentum: the network that it judges keeps changing.
    optimizer = optax.chain(
        clip_by_global_norm(rates.max_grad_norm),
        optax.adamw(rates.learning_rate, b1=0.0, b2=0.99, weight_decay=rates.weight_decay),
    )
    return Adversary(network, optimizer, o.adversarial_weight, frozen)
