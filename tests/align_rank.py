"""One rank of an exercise with a planted fault, started by torchrun: what a gradient is divided by.

python -m torch.distributed.run … tests/align_rank.py FAULT TRUSTED OUT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools._align import home  # noqa: E402
from tools._align.engine import Session, exercise  # noqa: E402
from tools._align.trace import load  # noqa: E402


def summed(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Gradients of all ranks added, and not divided by their number."""
    work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return work.then(lambda future: future.value()[0])


def own(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Every rank keeps its own gradients."""
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def main() -> None:
    fault, trusted, out = sys.argv[1:]
    of = load(Path(trusted)).header.exercise
    folder, recipe = home.find(of.recipe, of.data)
    again = exercise(recipe, folder, of.seed, of.steps, of.batch, of.ranks)
    session = Session(again, recipe, folder, "FP32", "CPU")
    session.net.register_comm_hook(None, {"summed": summed, "own": own}[fault])
    made = session.run(of.steps)
    session.device.close()
    if made is not None:
        made.save(Path(out))


if __name__ == "__main__":
    main()
