"""Devices and ranks: the only file that names cuda, mlu, npu and their collectives.

Looking at the host (`cards_on_host`) needs no torch, so that launch can refuse a run at once;
everything that opens a device imports torch inside. Cards are opened through `torch.accelerator`;
what that does not cover is in one table, a row a vendor.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

from proofrun.errors import DeviceError, one_line
from proofrun.heartbeat import Heart, timeout_of
from proofrun.host import cpu_name
from proofrun.recipe import Amp, Precision, PrecisionRules
from proofrun.runs import DeviceKind

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Backend:
    """One row of the device table."""

    torch_type: str
    collective: str
    plugin: str | None  # package whose import registers the device with torch
    nodes: tuple[str, ...]  # device files: one a card
    visible: str | None  # environment variable that narrows the visible cards
    kubernetes_resource: str | None  # of one card, as the vendor's device plugin calls it


BACKENDS: dict[DeviceKind, Backend] = {
    "GPU": Backend(
        torch_type="cuda",
        collective="nccl",
        plugin=None,
        nodes=("/dev/nvidia[0-9]*",),
        visible="CUDA_VISIBLE_DEVICES",
        kubernetes_resource="nvidia.com/gpu",
    ),
    "MLU": Backend(
        torch_type="mlu",
        collective="cncl",
        plugin="torch_mlu",
        nodes=("/dev/cambricon_dev[0-9]*",),
        visible="MLU_VISIBLE_DEVICES",
        kubernetes_resource="cambricon.com/mlu",
    ),
    "NPU": Backend(
        torch_type="npu",
        collective="hccl",
        plugin="torch_npu",
        nodes=("/dev/davinci[0-9]*",),
        visible="ASCEND_RT_VISIBLE_DEVICES",
        kubernetes_resource="huawei.com/Ascend910",
    ),
    "CPU": Backend("cpu", "gloo", None, (), None, None),
}

#: By these a collective library is told which network interface leads to the other nodes.
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")


#: `torch.accelerator` came with it.
OLDEST_TORCH = (2, 6)

#: What a rank needs besides the caller's environment. torch loads every plugin that is installed
#: while it is imported, also on a run that does not need it; one without its driver ends it there.
RANK_ENVIRONMENT = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def check_torch(version: str) -> None:
    """Raises DeviceError for a torch (`2.13.0+cpu`) that is older than `OLDEST_TORCH`."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        raise DeviceError(
            f"torch {version} is too old: {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer is needed; "
            "update it, or run in a newer container"
        )


def cards_on_host(kind: DeviceKind) -> int | None:
    """Cards of this kind, by device files and visibility variable; None: no limit (CPU)."""
    backend = BACKENDS[kind]
    if not backend.nodes:
        return None
    count = sum(len(glob.glob(pattern)) for pattern in backend.nodes)
    visible = os.environ.get(backend.visible or "")
    if visible is not None and count:
        count = min(count, len([card for card in visible.split(",") if card.strip()]))
    return count


def cards_in_torch(kind: DeviceKind) -> int:
    """Cards of this kind that the installed torch can open. Raises ImportError, DeviceError."""
    import torch

    _import_plugin(kind)
    return torch.accelerator.device_count() if _accelerator() == BACKENDS[kind].torch_type else 0


def torch_build() -> str:
    """What the installed torch is built for, e.g. `2.13.0+cpu, CPU only`. Raises ImportError."""
    import torch

    cuda = torch.version.cuda
    return f"{torch.__version__}, {f'for CUDA {cuda}' if cuda else 'without CUDA'}"


def _import_plugin(kind: DeviceKind) -> None:
    if plugin := BACKENDS[kind].plugin:
        try:
            importlib.import_module(plugin)
        except Exception as error:  # a plugin without its driver raises anything
            raise DeviceError(
                f"{kind}: `import {plugin}` failed: {one_line(error)[:300]}; install the vendor's "
                "driver and the PyTorch plugin that fits it"
            ) from None


def _accelerator() -> str | None:
    """The one type of card that torch works with in this process, if it has any."""
    import torch

    try:
        if not torch.accelerator.is_available():  # torch 2.6 raises where a newer one says None
            return None
        found = torch.accelerator.current_accelerator()
        return found.type if found else None
    except RuntimeError as error:  # built for one, a plugin brought another
        raise DeviceError(
            f"torch {torch.__version__} has two kinds of cards at once ({one_line(error)}); "
            "use an environment with one vendor's build alone"
        ) from None


def kind_on_host() -> DeviceKind:
    """The accelerator that this host has, else CPU."""
    return next((kind for kind in BACKENDS if cards_on_host(kind)), "CPU")


def amp_rule(precision: Precision, rules: PrecisionRules, kind: DeviceKind) -> Amp | None:
    """What mixed precision means in this run; None for FP32 and TF32.

    AMP is the recipe's on an accelerator and bf16 on a CPU, where fp16 has no native arithmetic.
    FP16 asks for fp16 with the recipe's loss scale on any device, BF16 for bf16 without one.
    """
    if precision == "AMP" and kind != "CPU":
        return rules.amp
    if precision in ("AMP", "BF16"):
        return Amp(dtype="bfloat16", loss_scale=None)
    if precision == "FP16":
        return Amp(dtype="float16", loss_scale=rules.amp.loss_scale or "dynamic")
    return None


def lost_a_peer(error: BaseException) -> bool:
    """Whether an exception says that another rank went away, rather than that this one is wrong."""
    import torch

    words = ("gloo/", "NCCL", "CNCL", "HCCL", "Connection closed by peer", "Connection reset")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


class Device:
    """An opened device and this process's place among the ranks.

    Control messages go over gloo on the CPU, so that they never wait for the card's queue.
    """

    def __init__(
        self,
        kind: DeviceKind,
        precision: Precision,
        rules: PrecisionRules,
        heart: Heart | None = None,
    ) -> None:
        """Open the card of this rank. `heart` is told when it waits for others.

        Raises DeviceError.
        """
        import torch

        self.kind = kind
        self.backend = BACKENDS[kind]
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.amp = amp_rule(precision, rules, kind)
        self.torch_device = self._open()
        self._set_float32(allow_tf32=precision == "TF32")
        self._waiting = heart.waiting if heart else contextlib.nullcontext
        self._control: Any = None
        if self.world > 1:
            # launch's watch is to find a hang first: it knows which rank is behind
            patience = timedelta(seconds=max(1800, 3 * timeout_of(os.environ)))
            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group(self.backend.collective, timeout=patience)
            same = self.backend.collective == "gloo"
            if not same:
                self._control = torch.distributed.new_group(backend="gloo", timeout=patience)

    def _open(self) -> torch.device:
        import torch

        check_torch(torch.__version__)
        _import_plugin(self.kind)
        if self.kind == "CPU":
            return torch.device("cpu")
        name = self.backend.torch_type
        found = _accelerator()
        if found != name:
            raise DeviceError(
                f"torch {torch.__version__} sees {f'{found} and ' if found else ''}no {self.kind}: "
                f"check the driver, and that this torch is built for {name}"
            )
        count = torch.accelerator.device_count()
        if count <= self.local_rank:
            raise DeviceError(
                f"the run needs {self.local_rank + 1} {self.kind}s or more, torch sees {count}"
            )
        torch.accelerator.set_device_index(self.local_rank)
        return torch.device(name, self.local_rank)

    def _set_float32(self, allow_tf32: bool) -> None:
        """Let float32 products be rounded to 10 mantissa bits, or not, on every vendor's switch."""
        import torch

        torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
        switches = {  # vendor's switches for convolutions and products; NPU calls it HF32
            "GPU": ("backends.cudnn.allow_tf32", "backends.cuda.matmul.allow_tf32"),
            "MLU": ("backends.cnnl.allow_tf32", "backends.mlu.matmul.allow_tf32"),
            "NPU": ("npu.conv.allow_hf32", "npu.matmul.allow_hf32"),
        }
        for path in switches.get(self.kind, ()):
            *parents, last = path.split(".")
            owner: Any = torch
            for parent in parents:
                owner = getattr(owner, parent, None)
            if owner is not None:
                setattr(owner, last, allow_tf32)

    @property
    def name(self) -> str:
        """The card as its vendor calls it."""

        if self.kind == "CPU":
            return cpu_name()
        return str(self._module.get_device_name(self.local_rank))

    @property
    def _module(self) -> Any:
        """What the vendor adds to torch: `torch.cuda` and its like."""
        import torch

        return torch.get_device_module(self.backend.torch_type)

    def memory_left(self) -> int | None:
        """Bytes that this process may still take on its device; None: the backend cannot tell."""
        if self.kind != "CPU":
            ask = getattr(self._module, "mem_get_info", None)
            return int(ask(self.local_rank)[0]) if ask else None
        left = psutil.virtual_memory().available
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            left = min(left, limit - psutil.Process().memory_info().vms)
        return max(left, 0)

    @property
    def dali_device_id(self) -> int | None:
        """The GPU that DALI decodes on; None decodes on the CPU."""
        return self.local_rank if self.kind == "GPU" else None

    def autocast(self) -> Any:
        """The autocast context of the run's precision."""
        import torch

        dtype = getattr(torch, self.amp.dtype) if self.amp else torch.bfloat16
        return torch.autocast(self.backend.torch_type, dtype=dtype, enabled=self.amp is not None)

    def rng_state(self) -> dict[str, torch.Tensor]:
        """Torch's generators of this rank: CPU, and the card's where there is one."""
        import torch

        states = {"cpu": torch.get_rng_state()}
        if self.kind != "CPU":
            states["card"] = self._module.get_rng_state(self.local_rank)
        return states

    def set_rng_state(self, states: dict[str, torch.Tensor]) -> None:
        import torch

        torch.set_rng_state(states["cpu"])
        if "card" in states and self.kind != "CPU":
            self._module.set_rng_state(states["card"], self.local_rank)

    # Control messages between ranks. All of them return at once in a world of one.

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over ranks, in float64 on the CPU."""
        import torch

        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        self.sum_(tensor)
        return [float(value) for value in tensor]

    def sum_(self, tensor: torch.Tensor) -> None:
        """In-place sum over ranks of a tensor on the CPU."""
        import torch

        if self.world > 1:
            with self._waiting():
                torch.distributed.all_reduce(tensor, group=self._control)

    def from_rank0(self, value: Any) -> Any:
        """Rank 0's value on every rank; any picklable object."""
        import torch

        if self.world == 1:
            return value
        box = [value if self.rank == 0 else None]
        with self._waiting():
            torch.distributed.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; an empty list elsewhere."""
        import torch

        if self.world == 1:
            return [value]
        box: list[Any] | None = [None] * self.world if self.rank == 0 else None
        with self._waiting():
            torch.distributed.gather_object(value, box, dst=0, group=self._control)
        return box or []

    def max_(self, tensor: torch.Tensor) -> None:
        """In-place maximum over ranks, in the card's queue: no host sync."""
        import torch

        if self.world > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)

    def mean_(self, tensor: torch.Tensor) -> None:
        """In-place mean over ranks of a floating tensor, in the card's queue."""
        import torch

        if self.world > 1:
            torch.distributed.all_reduce(tensor)
            tensor /= self.world

    def close(self) -> None:
        import torch

        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
