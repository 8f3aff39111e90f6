"""An optional loss term for training on pixels: the LPIPS of the predicted endpoint.

VOSR has none; its autoencoder was trained with one. The network is VGG16, so training never
optimizes the AlexNet LPIPS that evaluations report.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.config import Config
from vosr_jax.diffusion.objectives import Settings, ends_at_a_picture
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.models import autoencoders
from vosr_jax.training.frozen import FrozenNets


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
        at_once = max((self.rows or size * self.parts) // self.parts, 1)
        chosen = self.chosen(share)
        most = len(chosen)
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

    def chosen(self, share: Array) -> Array:
        """Places of the rows of one part that may be compared; those that count come first."""
        size = len(share)
        return jnp.argsort(share == 0)[: min(self.rows or size, size)]  # stable

    def window(self, images: Array) -> Array:
        """The part of [B, H, W, 3] that is compared."""
        side = slice(self.start, self.start + self.crop)
        return images[:, side, side]

    def _compared(self, weights: dict, latent: Array, truth: Array, share: Array) -> Array:
        autoencoder = self.frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent)
        distances = lpips(weights["lpips"], self.window(image), self.window(truth))
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
