"""Which weights are meant: by a path that somebody gives, or by the last training. Torch-free."""

from __future__ import annotations

import sys
from pathlib import Path

from proofrun.errors import CheckpointError, Exit, RunNameError, one_line, printable
from proofrun.runs import RunName
from proofrun.saved import FILES, NAME, all_in, read_meta, verify
from proofrun.status import Status

#: Files that may hold a state dict.
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def weights_at(path: Path, skipped: list[str] | None = None) -> list[Path]:
    """The files and checkpoints that `path` names, in order.

    A file or a checkpoint is itself, and a checkpoint's own file is the checkpoint; a run is its
    newest good one, see `newest_good`; a folder of files, checkpoints or numbered runs is all of
    them. Raises CheckpointError NO_WEIGHTS.
    """
    skipped = [] if skipped is None else skipped
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file or folder; give a file of weights, a checkpoint, a run "
            "folder, or a folder of checkpoints",
            Exit.NO_WEIGHTS,
        )
    if path.is_file():
        return [path.parent if _is_of_a_checkpoint(path) else path]
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: neither a file nor a folder; give a file of weights, a checkpoint, or a run",
            Exit.NO_WEIGHTS,
        )
    if is_checkpoint(path):
        return [path]
    if (path / "checkpoints").is_dir():
        found = newest_good(path, skipped)
    else:
        files = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix in SUFFIXES]
        runs = [newest_good(p, skipped) for p in sorted(path.glob("[0-9]*")) if p.is_dir()]
        found = all_in(path) + files + [last for each in runs for last in each]
    if not found:
        raise CheckpointError(
            f"{path}: no weights in there: neither a checkpoint (step-…) nor a file that ends in "
            f"{', '.join(SUFFIXES)}",
            Exit.NO_WEIGHTS,
        )
    return found


def one_at(path: Path) -> Path:
    """The last that `weights_at` finds, for a tool that takes one; stderr names what it skipped."""
    skipped: list[str] = []
    found = weights_at(path, skipped)[-1]
    for remark in skipped:
        print(printable(f"{remark}: skipped"), file=sys.stderr)
    return found


def newest_good(run: Path, skipped: list[str]) -> list[Path]:
    """The newest checkpoint of a run that is whole; newer ones are named in `skipped`.

    Where none is whole the newest: whoever reads it says what is wrong.
    """
    found = all_in(run / "checkpoints")
    remarks = []
    for path in reversed(found):
        try:
            verify(path)
        except CheckpointError as error:
            remarks.append(one_line(error))
            continue
        skipped += remarks
        return [path]
    return found[-1:]


def _is_of_a_checkpoint(file: Path) -> bool:
    """Whether a file is the weights of a checkpoint that says which run it is of."""
    try:
        return file.name == FILES[0] and bool(read_meta(file.parent))
    except CheckpointError:
        return False


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


def chosen(
    given: str | None, logs: Path, name: RunName, skipped: list[str] | None = None
) -> tuple[Path, ...]:
    """The weights of an Infer run: those of `--weights`, else of the last training.

    `skipped`: see `weights_at`. Raises CheckpointError NO_WEIGHTS.
    """
    path = Path(given).expanduser().absolute() if given else last_training(logs, name)
    return tuple(weights_at(path, skipped))
