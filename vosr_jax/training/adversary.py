"""An optional loss term for the last part of training on pixels: a discriminator's judgement.

VOSR has none. A discriminator learns to tell the truth from the network's predicted image; the
network learns to fool it. Both compare the two images of a row (a relativistic pair): the
discriminator minimizes softplus(fake - real), the network softplus(real - fake). The
discriminator's parameters and optimizer state are part of the train state.

There are two kinds. "patch" sees the image's pixels beside the enlarged input's. "features" sees
maps of the frozen VGG16 that the perceptual term uses (the projected discriminators of arXiv
2111.01007): it need not learn to see first, and judges textures instead of single pixels.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from vosr_jax.config import Config
from vosr_jax.metrics.lpips import features, unit_length
from vosr_jax.models import autoencoders
from vosr_jax.models.discriminator import FeatureDiscriminator, PatchDiscriminator
from vosr_jax.models.vgg import CHANNELS, STAGE_ENDS
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.optimizer import clip_by_global_norm
from vosr_jax.training.pixel_losses import PerceptualTerm

Gradient = dict[str, Array]
# What a discriminator is called with.
View = tuple[Array, ...]
# VGG16's stages whose last maps are judged: 1/2, 1/4 and 1/8 of the image's sides.
_STAGES = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What the "patch" discriminator sees: each image beside the enlarged input, all rows.

    Attributes:
      frozen: the frozen nets; the autoencoder decodes.
    """

    frozen: FrozenNets

    def __call__(self, weights: dict, latent: Array, inputs: dict[str, Array]) -> tuple[View, View]:
        """Views of the predicted and of the true images; see `Adversary.term`."""
        autoencoder = self.frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent)
        lq = autoencoders.decode(autoencoder, inputs["lq_latent"])
        return (image, lq), (inputs["hr_image"], lq)

    def by_row(self, values: Array, inputs: dict[str, Array]) -> Array:
        """Values of the rows seen as weighted values of all rows, [B]."""
        del inputs
        return values


@dataclasses.dataclass(frozen=True)
class Features:
    """What the "features" discriminator sees: VGG16's maps of the rows that LPIPS compares.

    Attributes:
      perceptual: the perceptual term, which chooses rows and window.
    """

    perceptual: PerceptualTerm

    def __call__(self, weights: dict, latent: Array, inputs: dict[str, Array]) -> tuple[View, View]:
        """Views of the predicted and of the true images; see `Adversary.term`."""
        chosen = self.perceptual.chosen(inputs["perceptual_share"])
        autoencoder = self.perceptual.frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent[chosen])
        truth = inputs["hr_image"][chosen]
        maps = features(
            weights["lpips"], self.perceptual.window(image), self.perceptual.window(truth)
        )
        # Channels with a mean square of 1: deeper maps are far larger otherwise.
        even = [unit_length(maps[i]) * maps[i].shape[-1] ** 0.5 for i in _STAGES]
        fake, real = zip(*(jnp.split(each, 2) for each in even), strict=True)
        return fake, real

    def by_row(self, values: Array, inputs: dict[str, Array]) -> Array:
        """Values of the rows seen as weighted values of all rows, [B]."""
        share = inputs["perceptual_share"]
        chosen = self.perceptual.chosen(share)
        weighted = jnp.where(share[chosen] > 0, values * share[chosen], 0.0)
        return jnp.zeros(len(share)).at[chosen].set(weighted)


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The discriminator and how it is trained.

    Attributes:
      network: blueprint of the discriminator.
      optimizer: its own optax transformation.
      weight: of the network's term.
      views: what the discriminator sees of the images.
    """

    network: Blueprint
    optimizer: optax.GradientTransformation
    weight: float
    views: Pixels | Features

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
          inputs: "hr_image" [B, H, W, 3] in [-1, 1], "lq_latent", and "perceptual_share" [B] if
            there is a perceptual term.

        Returns:
          (weighted term [], metrics with one value per row, the discriminator's gradient).
        """
        fake, real = self.views(weights, latent, inputs)

        def losses(parameters: Gradient, ours: View, theirs: View) -> Array:
            """Softplus of how much higher their images' scores are than ours, a value per row."""
            network = self.network.merge(parameters)
            pairs = zip(network(*ours), network(*theirs), strict=True)
            means = [jnp.mean(jax.nn.softplus(b - a), axis=(1, 2)) for a, b in pairs]
            return self.views.by_row(jnp.mean(jnp.stack(means), axis=0), inputs)

        rows = losses(jax.lax.stop_gradient(parameters), fake, real)
        seen = jax.lax.stop_gradient((real, fake))

        def own_loss(parameters: Gradient) -> tuple[Array, Array]:
            rows = losses(parameters, *seen)
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


def make_adversary(
    config: Config, frozen: FrozenNets | None, perceptual: PerceptualTerm | None
) -> Adversary | None:
    """Make the adversary of a config; None if its weight is 0."""
    o, rates = config.objective, config.optimizer
    if not o.adversarial_weight:
        return None
    assert frozen is not None, "an adversary looks at decoded pictures"
    seed, width = config.seed + 1, o.adversarial_width
    views: Pixels | Features
    network: Blueprint
    if o.adversary == "patch":
        views = Pixels(frozen)
        network = Blueprint(lambda: PatchDiscriminator(width, rngs=nnx.Rngs(params=seed)))
    else:
        assert perceptual is not None, "validation asks for a perceptual term"
        views = Features(perceptual)
        channels = [CHANNELS[STAGE_ENDS[i]] for i in _STAGES]
        network = Blueprint(
            lambda: FeatureDiscriminator(channels, width, rngs=nnx.Rngs(params=seed))
        )
    # No momentum: the network that it judges keeps changing.
    optimizer = optax.chain(
        clip_by_global_norm(rates.max_grad_norm),
        optax.adamw(rates.learning_rate, b1=0.0, b2=0.99, weight_decay=rates.weight_decay),
    )
    return Adversary(network, optimizer, o.adversarial_weight, views)
