"""Features of GPUs that the networks depend on."""

import dataclasses

import jax

# JAX's names of GPU platforms.
GPU_PLATFORMS = ("gpu", "cuda", "rocm")
# ROCm's architectures with bfloat16 matrix units: MI100 and later, RDNA 3 and later.
_ROCM_BFLOAT16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
      cuda: whether it is an NVIDIA GPU; others are ROCm GPUs.
      capability: compute capability (major, minor) of an NVIDIA GPU; (0, 0) for others.
      architecture: of a ROCm GPU, such as "gfx90a".
      cudnn: version of the library, such as 91100; 0 without it.
    """

    cuda: bool
    capability: tuple[int, int] = (0, 0)
    architecture: str = ""
    cudnn: int = 0

    @property
    def has_bfloat16(self) -> bool:
        """Whether the GPU has bfloat16 matrix units; others compute the products in float32."""
        if self.cuda:
            return self.capability >= (8, 0)
        return self.architecture.startswith(_ROCM_BFLOAT16)


def gpu_of(device: jax.Device) -> Gpu:
    """The features that a device of platform "gpu" reports."""
    said = str(getattr(device, "compute_capability", ""))
    major, _, minor = said.partition(".")
    if major.isdigit() and minor.isdigit():
        return Gpu(cuda=True, capability=(int(major), int(minor)), cudnn=_cudnn_version())
    return Gpu(cuda=False, architecture=said)


def local_gpu() -> Gpu:
    """The least capable of this process's GPUs, because one program runs on all of them."""
    return min(map(gpu_of, jax.local_devices()), key=lambda gpu: (gpu.cuda, gpu.capability))


def _cudnn_version() -> int:
    try:
        # JAX gives it no public name, so another version may lack it.
        from jax._src.lib import cuda_versions

        return cuda_versions.cudnn_get_version() if cuda_versions is not None else 0
    except (ImportError, RuntimeError):
        return 0
