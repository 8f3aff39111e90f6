"""An experiment's settings: typed, validated, and derived in one place.

A file in configs/ returns an ml_collections ConfigDict. `validate` turns it into the frozen
dataclasses of schema.py and run_sections.py before anything is allocated. An unknown key, a wrong
type or a contradiction is an error that names the key.
"""

from vosr_jax.config.from_file import get_config_dict, parent
from vosr_jax.config.run_sections import (
    DataConfig,
    EmaConfig,
    EvalConfig,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
)
from vosr_jax.config.schema import (
    AutoencoderConfig,
    Config,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
)
from vosr_jax.config.validation import require_key, validate

__all__ = [
    "AutoencoderConfig",
    "Config",
    "DataConfig",
    "EmaConfig",
    "EncoderConfig",
    "EvalConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "TrainConfig",
    "get_config_dict",
    "parent",
    "require_key",
    "validate",
]
