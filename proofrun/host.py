"""The processor of this host: its name, cores and native bf16. Standard library only."""

from __future__ import annotations

import os


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (AVX512-BF16, AMX-BF16, Arm bf16)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = {
                word
                for line in file
                if line.startswith(("flags", "Features"))
                for word in line.split()
            }
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_name() -> str:
    """The processor's model name and the number of usable cores."""
    model = "CPU"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            model = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")),
                model,
            )
    except OSError:
        pass
    return f"{model}, {usable_cores()} cores"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))
