"""What XLA is asked for, by platform, each with its reason. It travels with the program.

Options of the environment (XLA_FLAGS, LIBTPU_INIT_ARGS) stay the user's.
"""

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
      deterministic: the same bits in every run on like devices, also on GPU, where it costs
        speed; TPU and CPU programs are so anyway.
    """
    by_platform: dict[str, dict] = {"tpu": _TPU, "gpu": _GPU}
    chosen = by_platform.get(platform, {})
    if platform == "gpu" and deterministic:
        chosen = chosen | _GPU_DETERMINISTIC
    return {option: value for option, (value, _) in chosen.items()}
