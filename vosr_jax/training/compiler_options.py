"""XLA options by platform, each with its reason; they are part of the program.

Options that the user sets in XLA_FLAGS or LIBTPU_INIT_ARGS are left out, because a program's own
options would override them.
"""

import os

# option: (value, why)
_TPU = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": (
        "1000000",
        "a gather that feeds a product stays one collective instead of a loop of permutes around "
        "pieces of the product, so that what is sent can be counted",
    ),
}
_GPU = {
    "xla_gpu_enable_latency_hiding_scheduler": (
        True,
        "gathers and scatters of fsdp run beside the blocks' products",
    ),
}
_GPU_DETERMINISTIC = {
    "xla_gpu_deterministic_ops": (True, "no atomics, whose order changes from run to run"),
    "xla_gpu_autotune_level": (
        0,
        "kernels by rule instead of by a measurement, which may choose others the next time",
    ),
}


def compiler_options(platform: str, *, deterministic: bool = False) -> dict[str, str | bool | int]:
    """Options for `jax.jit(compiler_options=...)`.

    Args:
      platform: "tpu", "gpu" or "cpu".
      deterministic: give the same bits in every run on equal devices, on GPU too, where it costs
        speed. TPU and CPU programs are deterministic anyway.
    """
    by_platform: dict[str, dict] = {"tpu": _TPU, "gpu": _GPU}
    chosen = by_platform.get(platform, {})
    if platform == "gpu" and deterministic:
        chosen = chosen | _GPU_DETERMINISTIC
    given = {
        argument.lstrip("-").split("=")[0]
        for variable in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        for argument in os.environ.get(variable, "").split()
    }
    return {option: value for option, (value, _) in chosen.items() if option not in given}
