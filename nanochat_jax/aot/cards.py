"""What a GPU is, as far as compiling for it and planning a run on it need: `cards.toml`."""

import dataclasses
import pathlib
import tomllib

from nanochat_jax.config.values import check_known
from nanochat_jax.gpu_process import FRACTION

TABLE = pathlib.Path(__file__).with_name("cards.toml")

# Of the memory on the box what a program sees: XLA's descriptions have 98.6 to 99.1 % for cards
# with ECC, and a desktop takes a little more.
VISIBLE = 0.985

# KiB of shared memory of a multiprocessor, threads that reside there, float32 lanes.
# Source: CUDA C++ programming guide, table of technical specifications by compute capability.
CAPABILITIES = {
    "7.5": (64, 1024, 64),
    "8.0": (164, 2048, 64),
    "8.6": (100, 1536, 128),
    "8.9": (100, 1536, 128),
    "9.0": (228, 2048, 128),
}


@dataclasses.dataclass(frozen=True)
class Card:
    """One GPU, in the units of `cards.toml`."""

    name: str
    capability: str
    gib: int
    tflops: float
    bandwidth: float
    sms: int
    l2_mib: int
    ghz: float
    link: float
    visible: float = VISIBLE

    @property
    def memory(self) -> int:
        """Bytes that a program sees."""
        return int(self.gib * 2**30 * self.visible)

    @property
    def pool(self) -> int:
        """Bytes of JAX's pool of it, as our programs set that up."""
        return int(self.memory * float(FRACTION))

    @property
    def flops(self) -> float:
        """Peak FLOP/s of dense products in the type that models compute in there."""
        return self.tflops * 1e12


def card(name: str) -> Card:
    """The card of that name in `cards.toml`; ValueError with the nearest for an unknown one."""
    table = tomllib.loads(TABLE.read_text())
    check_known(name, table, f"no card {name!r}")
    return Card(**table[name])


def names() -> list[str]:
    """All that `card` knows."""
    return list(tomllib.loads(TABLE.read_text()))


def description(card: Card) -> str:
    """XLA's text proto of the card, for its compiler (`GpuTargetConfigProto`).

    Source of the fields: openxla/xla, `stream_executor/device_description.proto`.
    """
    kib, threads, lanes = CAPABILITIES[card.capability]
    major, minor = card.capability.split(".")
    device = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "threads_per_core_limit": threads,
        "shared_memory_per_block": 48 * 1024, "shared_memory_per_core": kib * 1024,
        "shared_memory_per_block_optin": (kib - 1) * 1024,
        "registers_per_core_limit": 65536, "registers_per_block_limit": 65536,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65535, "block_dim_limit_z": 65535,
        "thread_dim_limit_x": 1024, "thread_dim_limit_y": 1024, "thread_dim_limit_z": 64,
        "core_count": card.sms, "fpus_per_core": lanes, "clock_rate_ghz": card.ghz,
        "memory_bandwidth": int(card.bandwidth), "device_memory_size": card.memory,
        "l2_cache_size": card.l2_mib * 2**20, "device_address_bits": 64, "pcie_bandwidth": 2**35,
    }  # fmt: skip
    # Hopper's own instructions (wgmma) are an extension of its capability.
    own = "ACCELERATED_FEATURES" if major == "9" else "NONE"
    text = {
        "device_vendor": "NVIDIA Corporation", "name": card.name, "driver_version": "13.0.0",
        "runtime_version": "12.8.0", "compile_time_toolkit_version": "12.8.0",
        "dnn_version": "9.10.0", "platform_version": f"Compute Capability {card.capability}",
    }  # fmt: skip
    lines = [f"{key}: {value}" for key, value in device.items()]
    lines += [f'{key}: "{value}"' for key, value in text.items()]
    lines += [
        f"cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {own} }}"
    ]
    if card.link > 32e9:  # NVLink
        lines += [f"device_interconnect_info {{ active_links: {round(card.link / 25e9)} }}"]
    return "\n".join(
        ["gpu_device_info {", *lines, "}", 'platform_name: "CUDA"']
        + ["dnn_version_info { major: 9 minor: 10 patch: 0 }"]
        + [f'device_description_str: "{card.name}"', ""]
    )
