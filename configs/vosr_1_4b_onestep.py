"""VOSR 1.4B in one step: Qwen-Image latents, DINOv2 ViT-L/14 tokens, distilled.

The released configuration: recursive consistency from the released multi-step model, whose
weights the student begins with; 100,000 steps of 32 at 512 px, guidance 0.5. `teacher` may name
another run, export or release.
"""

from vosr_jax import config as c
from vosr_jax.diffusion.conditions import GuidanceSettings


def get_config():
    """The whole experiment; every hyperparameter that is not named has its official default."""
    return c.get_config_dict(
        c.Config(
            teacher="preset/ckpts/VOSR_1.4B_ms",
            model=c.ModelConfig(width=1536, depth=36, heads=24, r_embedding=True),
            autoencoder=c.AutoencoderConfig(kind="qwen", path="preset/ckpts/Qwen-Image-vae-2d"),
            encoder=c.EncoderConfig(
                kind="dinov2l",
                path="preset/ckpts/torch_cache/checkpoints/dinov2_vitl14_pretrain.pth",
                block=17,
            ),
            objective=c.ObjectiveConfig(
                name="rcgm", delta_t=0.01, n_steps=2, weak_strength=0.1, average_weight=1.0
            ),
            guidance=GuidanceSettings(drop_rate=0.1, scale=0.5),
            data=c.DataConfig(sources="data/train", crop_size=512, workers=16),
            optimizer=c.OptimizerConfig(learning_rate=2e-5),
            ema=c.EmaConfig(decay=0.9999),
            mesh=c.MeshConfig(data=-1, fsdp=0),
            train=c.TrainConfig(
                total_steps=100_000,
                batch_size=32,
                checkpoint_every=5000,
                sample_every=5000,
                eval_every=5000,
            ),
            sampling=c.SamplingConfig(steps=1),
        )
    )
