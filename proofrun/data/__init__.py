"""The batch contract, and the choice of a loader behind it.

Every loader yields raw `uint8` pixels in NHWC; the device normalises them, so a batch crosses to
the card at a quarter of the bytes. `ids` are positions in the image list: they let an evaluation
prove that it scored every image exactly once. Torch-free until a loader is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from proofrun.data.lists import ImageList
from proofrun.errors import DataError, Exit, ProofrunError, ResumeError, one_line
from proofrun.recipe import EvalProtocol, TrainInput

if TYPE_CHECKING:
    from torch import Tensor

LoaderName = Literal["dali", "torchvision", "synthetic"]

#: What a train loader needs to go on; small, and safe to pickle.
LoaderState = dict[str, int | str | bytes]


class Batch(NamedTuple):
    """images: uint8 (B, H, W, 3) RGB; labels, ids: int64 (B,). In evaluation B may be 0.

    labels and ids are on the host; images too, unless DALI decodes on a GPU (`Shard.device_id`).
    Later batches do not overwrite an earlier one; images are read-only by agreement.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Shard:
    """Which part of the data this process reads, and with what.

    `threads` are the loader's decode threads (worker processes of the torchvision loader, where 0
    decodes in this process); `device_id` is a GPU for DALI, or None for the CPU.
    """

    rank: int
    world: int
    threads: int
    device_id: int | None = None


class TrainLoader(Protocol):
    """An endless train stream cut into epochs of `steps` batches, the same number on every rank.

    Within an epoch no image comes twice, over all ranks.
    """

    steps: int

    def epoch(self) -> Iterator[Batch]:
        """The rest of the current epoch: all of it, unless the loader was opened mid-epoch.

        After the last batch of an epoch, also on a resume there, the next call is the next epoch.
        Raises DataError for a file that cannot be decoded.
        """
        ...

    def state(self) -> LoaderState:
        """What `open_train(state=…)` needs to yield exactly the batches not yet yielded."""
        ...

    def close(self) -> None: ...


class EvalLoader(Protocol):
    """A pass over a list: every image exactly once over all ranks, in as many batches on each."""

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None: ...


def open_train(
    name: LoaderName,
    images: ImageList,
    spec: TrainInput,
    batch: int,
    shard: Shard,
    seed: int,
    state: LoaderState | None = None,
) -> TrainLoader:
    """The train loader `name`: `batch` images per rank and step, all randomness from `seed`.

    With `state` it goes on where that state was taken, bit-equal, at the same `batch`, `seed`, list
    length and world. Raises DataError when there is less than one batch per rank, ResumeError when
    the state is of another loader or layout, ProofrunError when the loader is not installed.
    """
    if train_steps(len(images.files), shard.world, batch) == 0:
        raise DataError(
            f"{images.root}: {len(images.files)} training images are less than one batch of "
            f"{batch} on each of {shard.world} ranks; use fewer ranks or a smaller batch",
            Exit.NO_DATA,
        )
    if name == "dali":
        _check_dali()
        from proofrun.data.dali import DaliTrain

        return DaliTrain(images, spec, batch, shard, seed, state)
    if name == "torchvision":
        from proofrun.data.pil import PilTrain

        return PilTrain(images, spec, batch, shard, seed, state)
    from proofrun.data.synthetic import SyntheticTrain

    return SyntheticTrain(images, spec, batch, shard, seed, state)


def open_eval(
    name: LoaderName, images: ImageList, protocol: EvalProtocol, batch: int, shard: Shard
) -> EvalLoader:
    """The evaluation loader `name`, at most `batch` images per rank and step.

    Draws no random number. Raises ProofrunError when the loader is not installed.
    """
    if name == "dali":
        _check_dali()
        from proofrun.data.dali import DaliEval

        return DaliEval(images, protocol, batch, shard)
    if name == "torchvision":
        from proofrun.data.pil import PilEval

        return PilEval(images, protocol, batch, shard)
    from proofrun.data.synthetic import SyntheticEval

    return SyntheticEval(images, protocol, batch, shard)


def train_steps(images: int, world: int, batch: int) -> int:
    """Full batches that every rank gets in an epoch; the rest of the epoch is dropped."""
    return images // world // batch


def eval_ids(images: int, shard: Shard) -> range:
    """The positions that this rank scores; over all ranks every position once."""
    return range(shard.rank, images, shard.world)


def eval_batches(images: int, world: int, batch: int) -> int:
    """Batches of every rank in an evaluation, those without rows included."""
    return -(-images // (world * batch))


def stream_key(
    loader: LoaderName, images: ImageList, batch: int, shard: Shard, seed: int
) -> LoaderState:
    """What two runs must share for the state of one to fit the other; part of every state."""
    return {
        "loader": loader,
        "images": len(images.files),
        "batch": batch,
        "rank": shard.rank,
        "world": shard.world,
        "seed": seed,
    }


def check_state(state: Mapping[str, int | str | bytes], key: LoaderState) -> None:
    """Raises ResumeError naming the first thing in which `state` belongs to another stream."""
    for name, value in key.items():
        if state.get(name) != value:
            raise ResumeError(
                f"the saved loader state has {name} {state.get(name)!r}, this run {value!r}; "
                "resume with the same loader, data, batch and ranks, or start over with --new"
            )


def lost_a_worker(error: BaseException) -> bool:
    """Whether an exception says that a process of a loader died, rather than what it read."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _check_dali() -> None:
    try:
        import proofrun.data.dali  # noqa: F401
    except ImportError as error:
        raise ProofrunError(
            f"the dali loader needs the package nvidia-dali-cuda130 (or -cuda120), whose import "
            f"failed: {one_line(error)}; install it, or pass --loader torchvision, which marks the "
            "row overridden",
            Exit.NOT_INSTALLED,
        ) from None
