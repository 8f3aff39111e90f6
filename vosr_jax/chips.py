"""Published data of accelerator chips: peak rates, memory, network and host.

The figures come from Google's TPU pages (tpu7x: docs.cloud.google.com/tpu/docs/tpu7x, November
2026) and from NVIDIA's data sheets as of 2025. None was measured here.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device and its share of the host.

    The device is a whole chip, or half of a chip whose cores JAX addresses separately.

    Attributes:
      name: the name that topologies use.
      flops: bfloat16 peak, operations per second.
      memory: bytes of HBM.
      memory_bandwidth: bytes per second.
      link: bytes per second of one link in one direction.
      torus: dimensions of the network; a chip has two links per dimension.
      host_devices: devices per virtual machine.
      host_cores: virtual CPUs of that machine.
      slow_network: bytes per second per device between slices, in one direction.
      devices: devices per chip. They share its links, so `link` is one device's part.
    """

    name: str
    flops: float
    memory: int
    memory_bandwidth: float
    link: float
    torus: int
    host_devices: int
    host_cores: int
    slow_network: float
    devices: int = 1

    @property
    def cores(self) -> float:
        """Virtual CPUs per device."""
        return self.host_cores / self.host_devices


_GIB = 1 << 30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * _GIB, 1228e9, 50e9, 3, 4, 240, 3.1e9),
        Chip("v5e", 197e12, 16 * _GIB, 819e9, 50e9, 2, 4, 112, 3.1e9),
        Chip("v5p", 459e12, 95 * _GIB, 2765e9, 100e9, 3, 4, 208, 6.25e9),
        Chip("v6e", 918e12, 32 * _GIB, 1640e9, 100e9, 2, 4, 180, 12.5e9),
        # A chip is two devices: 2307 TFLOP/s, 192 GiB, 7380 GB/s, six links of 100 GB/s each way.
        Chip("tpu7x", 1153.5e12, 96 * _GIB, 3690e9, 50e9, 3, 8, 224, 6.25e9, devices=2),
    )
}

# {JAX's device kind: bfloat16 peak without sparsity}
_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 150e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float:
    """Peak operations per second of a JAX device kind; 0 if it is unknown."""
    matching = [name for name in _PEAKS if device_kind.startswith(name)]
    return _PEAKS[max(matching, key=len)] if matching else 0.0
