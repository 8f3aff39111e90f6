"""An optional adversarial term for the last part of training on pixels.

A patch discriminator learns to tell the truth from the network's predicted image, each beside the
enlarged input. The network learns to fool it. Both compare the two images of a row (a relativistic
pair): the discriminator minimizes softplus(fake - real), the network softplus(real - fake). The
discriminator's parameters and optimizer state are part of the train state.
VOSR has no such term.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from vosr_jax.config import Config
from vosr_jax.models import autoencoders
from vosr_jax.models.discriminator import PatchDiscriminator
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.optimizer import clip_by_global_norm

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
