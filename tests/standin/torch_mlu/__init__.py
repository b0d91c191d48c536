"""What Cambricon's plugin `torch_mlu` is to torch, over host memory: registers the device `mlu`.

Only the tests put this package on the path. It is built by torch's own tools at first import.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch
from torch.utils import cpp_extension

_standin = cpp_extension.load(
    name="proofrun_standin",
    sources=[str(Path(__file__).with_name("standin.cpp"))],
    extra_cflags=["-O0", "-Wno-deprecated-declarations"],
)


class _Module(ModuleType):
    """`torch.mlu`: what PyTorch asks of a device module."""

    @staticmethod
    def is_available() -> bool:
        return _standin.cards() > 0

    @staticmethod
    def device_count() -> int:
        return int(_standin.cards())

    @staticmethod
    def current_device() -> int:
        return int(_standin.current())

    @staticmethod
    def set_device(index: int) -> None:
        _standin.set_current(index)

    @staticmethod
    def get_device_name(index: int = 0) -> str:
        return "stand-in over host memory"

    @staticmethod
    def synchronize(index: int | None = None) -> None:
        """Every operator is done when it returns."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Random numbers come from the CPU's generator."""

    @staticmethod
    def get_rng_state(device: int | str | torch.device = "mlu") -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: int | str | torch.device = "mlu") -> None:
        torch.set_rng_state(state)


computed = _standin.computed
torch.utils.rename_privateuse1_backend("mlu")
torch._register_device_module("mlu", _Module("torch.mlu"))
torch.utils.generate_methods_for_privateuse1_backend()
sys.modules["torch.mlu"] = torch.mlu
