"""Eight real ranks over gloo: what each trains on and scores, and their gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def eight(tmp_path_factory, digits, environment) -> Path:
    out = tmp_path_factory.mktemp("eight")
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=8",
            "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
            str(Path(__file__).with_name("eight_ranks.py")), str(out), str(digits),
        ],
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def per_rank(out: Path, name: str) -> list:
    return [json.loads((out / f"{name}.rank{rank}.json").read_text()) for rank in range(8)]


@pytest.mark.parametrize("loader", ["dali", "synthetic"])
def test_three_steps_and_an_evaluation(eight, loader):
    ranks = per_rank(eight, loader)
    for seen in ranks:
        assert seen["batch"] == 8
        assert seen["steps"] == 1437 // 8 // 8
        assert seen["lr"] == pytest.approx(ranks[0]["lr"])
        assert len(seen["trained"]) == 3 * 8
        assert seen["hash"] == ranks[0]["hash"]  # one model on all ranks
    trained = [i for seen in ranks for i in seen["trained"]]
    assert len(set(trained)) == len(trained) == 3 * 8 * 8  # disjoint shards
    scored = sorted(i for seen in ranks for i in seen["scored"])
    assert scored == list(range(360))  # the list, as a multiset


def test_the_evaluation_counts_every_image_once(eight):
    lines = (eight / "dali" / "001" / "events.jsonl").read_text().splitlines()
    (score,) = [e for e in map(json.loads, lines) if e["kind"] == "eval"]
    assert score["count"] == score["expected"] == 360


def test_gradients_equal_one_ranks_on_the_same_global_batch(eight, evidence):
    worst = per_rank(eight, "gradient")[0]
    what = "gradient of 8 ranks against one rank's on the same global batch, worst of the largest"
    evidence.figure(what, f"{worst:.1e}", "1e-6")
    assert worst <= 1e-6
