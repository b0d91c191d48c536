"""Which weights are meant: by a path that somebody gives, or by the last training. Torch-free."""

from __future__ import annotations

from pathlib import Path

from proofrun.errors import CheckpointError, Exit, RunNameError
from proofrun.runs import RunName
from proofrun.saved import NAME, all_in
from proofrun.status import Status

#: Files that may hold a state dict.
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def weights_at(path: Path) -> list[Path]:
    """The files and checkpoints that `path` names, in order.

    A file or a checkpoint is itself; a run is its last checkpoint; a folder of files, checkpoints
    or numbered runs is all of them. Raises CheckpointError NO_WEIGHTS.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file or folder; give a file of weights, a checkpoint, a run "
            "folder, or a folder of checkpoints",
            Exit.NO_WEIGHTS,
        )
    if path.is_file() or is_checkpoint(path):
        return [path]
    if (path / "checkpoints").is_dir():
        found = all_in(path / "checkpoints")[-1:]
    else:
        files = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix in SUFFIXES]
        runs = [all_in(p / "checkpoints")[-1:] for p in sorted(path.glob("[0-9]*")) if p.is_dir()]
        found = all_in(path) + files + [last for each in runs for last in each]
    if not found:
        raise CheckpointError(
            f"{path}: no weights in there: neither a checkpoint (step-…) nor a file that ends in "
            f"{', '.join(SUFFIXES)}",
            Exit.NO_WEIGHTS,
        )
    return found


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is one of our checkpoints, whole or damaged, renamed or behind a link."""
    return (path / "meta.json").is_file() or NAME.fullmatch(path.resolve().name) is not None


def last_training(logs: Path, name: RunName) -> Path:
    """The finished training of this model on this data that ended last. Raises CheckpointError."""
    found: list[tuple[float, Path]] = []
    for path in logs.glob("*_Train/[0-9]*"):
        try:
            run = RunName.parse(path.parent.name)
        except RunNameError:
            continue
        status = Status.read(path / "status.json")
        same = (run.model, run.data) == (name.model, name.data)
        if same and status and status.status == "finished" and all_in(path / "checkpoints"):
            found.append((status.t_wall, path))
    if not found:
        raise CheckpointError(
            f"{logs}: no finished training of {name.model} on {name.data}: train first "
            f"(run_scripts/{name.model}*_Train.sh), or give --weights PATH",
            Exit.NO_WEIGHTS,
        )
    return max(found)[1]


def chosen(given: str | None, logs: Path, name: RunName) -> tuple[Path, ...]:
    """The weights of an Infer run: those of `--weights`, else of the last training.

    Raises CheckpointError NO_WEIGHTS.
    """
    path = Path(given).expanduser().absolute() if given else last_training(logs, name)
    return tuple(weights_at(path))
