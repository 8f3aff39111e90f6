"""VOSR 1.4B in one step: Qwen-Image latents, DINOv2 ViT-L/14 tokens, distilled.

It differs from configs/vosr_0_5b_onestep.py in its networks and its teacher alone.
"""

import dataclasses

from vosr_jax import config as c


def get_config(variant: str = ""):
    """The experiment."""
    config = c.parent(__file__, "vosr_0_5b_onestep").one_step(variant)
    larger = c.parent(__file__, "vosr_1_4b").larger
    return c.get_config_dict(
        dataclasses.replace(larger(config), teacher="preset/ckpts/VOSR_1.4B_ms")
    )
