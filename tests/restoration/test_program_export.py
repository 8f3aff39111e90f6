"""Exported programs give the picture in a process that has jax but not this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.restoration import autoencoders
from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.restoration.program_export import export_programs, programs_of

_SIDE = 32
_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vosr_jax", "flax"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Blocked())
"""
_RUN = """
given = np.load(sys.argv[1])
np.save(sys.argv[2], np.asarray(restore(given["image"], given["noise"])))
try:
    import vosr_jax
except ImportError:
    print("alone")
"""
_MODELS = {
    "guided": lambda: tiny_model(),
    "with r": lambda: tiny_model(sampler=SamplerSettings(steps=2, r_input=True)),
    "convolutions": lambda: tiny_model(autoencoder=autoencoders.stable_diffusion()),
}


def _by_programs(model, image, noise) -> np.ndarray:
    """The same functions in this process."""
    programs = programs_of(model, _SIDE)
    run = {name: program.jitted() for name, program in programs.items()}
    weights = {name: program.weights for name, program in programs.items()}
    lq_latent = run["encode"](weights["encode"], image)
    sampler, z = model.sampler, noise
    times = sampler.times()
    for t, r in zip(times, times[1:], strict=False):
        given = [lq_latent, z, np.full(1, t), np.full(1, r)]
        if not sampler.r_input:
            scale = sampler.guidance_scale if sampler.guided(float(t)) else 1.0
            given += [np.float32(scale), np.float32(sampler.weak_strength)]
        z = z - (t - r) * run["velocity"](weights["velocity"], *given)
    return np.asarray(run["decode"](weights["decode"], z, lq_latent))


@pytest.mark.parametrize("kind", _MODELS)
def test_a_process_without_this_package_gives_the_same_bits(kind, tmp_path):
    model = _MODELS[kind]()
    folder = export_programs(model, tmp_path / "programs", _SIDE)
    side, channels = _SIDE // model.autoencoder.downscale, model.autoencoder.latent_channels
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, _SIDE, _SIDE, 3)).astype(np.float32)
    noise = rng.normal(size=(1, side, side, channels)).astype(np.float32)
    np.savez(tmp_path / "given.npz", image=image, noise=noise)
    readme = (folder / "README.md").read_text()
    example = readme.split("```python\n")[1].split("```")[0]
    program = _BLOCKED + example.replace("FOLDER", repr(str(folder))) + _RUN
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "given.npz"), str(tmp_path / "made.npy")],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "alone"
    made = np.load(tmp_path / "made.npy")
    np.testing.assert_array_equal(made, _by_programs(model, image, noise))
    # And what the model itself makes, by programs that XLA fused otherwise.
    lq_latent = model.encode(image, None)
    live = model.decode(model.sample(lq_latent, noise, None, model.sampler))
    np.testing.assert_allclose(made, live, atol=1e-4)
    facts = json.loads((folder / "program.json").read_text())
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert set(facts["sha256"]) == {f.name for f in folder.iterdir()} - {
        "README.md",
        "program.json",
    }


def test_what_cannot_be_exported_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="multiple of 4 for tiny, not 30"):
        export_programs(tiny_model(), tmp_path / "a", 30)
    with pytest.raises(UserError, match="in float32"):
        export_programs(tiny_model(precision="float16"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert cli.main(["export-program", "-o", str(tmp_path / "a"), "--batch", "0"]) == 1
    assert "--batch must be at least 1" in capsys.readouterr().err
