"""Exports read back by readers of others: MLPerf's parser, TensorBoard's protobuf, csv."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fake_logs import FakeRun
from mlperf_logging.compliance_checker.mlp_parser import parse_file
from mlperf_logging.mllog import constants
from test_report import DIGITS

from proofrun.errors import Exit
from proofrun.events import Eval, Train, effective, read_events

ROOT = Path(__file__).resolve().parent.parent

# The protobuf classes alone: the package around them loads torch where it is installed.
_READER = """
import json, struct, sys, types
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
spec = PathFinder.find_spec("tensorboardX")
package = types.ModuleType("tensorboardX")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["tensorboardX"] = package
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
def masked(data):
    x = crc32c(data) & 0xffffffff
    return (((x >> 15) | (x << 17 & 0xffffffff)) + 0xa282ead8) & 0xffffffff
found, raw = [], open(sys.argv[1], "rb").read()
while raw:
    (size,), (check,) = struct.unpack("<Q", raw[:8]), struct.unpack("<I", raw[8:12])
    data, (last,) = raw[12:12 + size], struct.unpack("<I", raw[12 + size:16 + size])
    assert check == masked(raw[:8]) and last == masked(data)
    event, raw = Event.FromString(data), raw[16 + size:]
    assert event.file_version == ("" if found else "brain.Event:2")
    values = {v.tag: v.simple_value for v in event.summary.value}
    found.append([event.wall_time, event.step, values])
print(json.dumps(found))
"""


def export(run: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "export_log.py"), str(run), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that was killed once: what no longer counts must be in no export."""
    return FakeRun(DIGITS, killed_at=2).write(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def events(run) -> list[object]:
    found = [event for _, event in read_events(run / "events.jsonl")]
    return list(effective(found))  # type: ignore[arg-type]


def test_csv(run, events, tmp_path):
    assert export(run, "--to", "csv", "--out", tmp_path / "x.csv").returncode == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert export(run, "--to", "csv").stdout == (tmp_path / "x.csv").read_text()
    assert len(rows) == len(events)
    lines = (run / "events.jsonl").read_text().splitlines()
    for row in rows:
        plain = json.loads(lines[int(row["line"]) - 1])
        for key, value in plain.items():
            if isinstance(value, dict | list):
                assert key not in row
            elif isinstance(value, float):
                assert float(row[key]) == value
            else:
                assert row[key] == ("" if value is None else str(value))


def test_mllog(run, events, tmp_path):
    path = tmp_path / "run.log"
    assert export(run, "--to", "mllog", "--out", path).returncode == 0
    found, errors = parse_file(str(path), ruleset="6.1.0")
    assert errors == [] and len(found) == len(path.read_text().splitlines())
    known = {value for name, value in vars(constants).items() if name.isupper()}
    assert {line.key for line in found} <= known | {"tracked_stats"}
    assert [line.timestamp for line in found if line.key != "epoch_stop"] == sorted(
        line.timestamp for line in found if line.key != "epoch_stop"
    )

    def values(key: str) -> list[object]:
        return [line.value["value"] for line in found if line.key == key]

    evals = [e for e in events if isinstance(e, Eval)]
    assert values("eval_accuracy") == [e.correct1 / e.count for e in evals]
    stats = values("tracked_stats")
    trained = [e for e in events if isinstance(e, Train)]
    assert [s["throughput"] for s in stats] == [e.images / e.window_s for e in trained]
    assert [s["loss"] for s in stats] == [e.loss for e in trained]
    assert values("submission_benchmark") == ["Inceptionv2"] and values("global_batch_size") == [64]
    status = [line.value["metadata"].get("status") for line in found if line.key == "run_stop"]
    assert status == ["success"]
    epochs = [line.value["metadata"]["epoch_num"] for line in found if line.key == "epoch_start"]
    assert epochs == list(range(1, 7)) and len(values("epoch_stop")) == 6
    open_ones: list[str] = []
    for line in found:
        raw = json.loads(line.full_string.removeprefix(":::MLLOG "))
        assert raw["metadata"]["lineno"] > 0
        if raw["event_type"] == constants.INTERVAL_START:
            open_ones.append(line.key.removesuffix("_start"))
        elif raw["event_type"] == constants.INTERVAL_END:
            open_ones.remove(line.key.removesuffix("_stop"))
    assert open_ones == []


def test_tensorboard(run, events, tmp_path):
    done = export(run, "--to", "tensorboard", "--out", tmp_path)
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path / DIGITS / "001" and "tfevents" in path.name
    read = subprocess.run(
        [sys.executable, "-c", _READER, str(path)], capture_output=True, text=True, timeout=60
    )
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)

    def float32(value: float) -> float:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])

    def series(tag: str) -> list[tuple[float, int, float]]:
        return [(t, step, values[tag]) for t, step, values in found if tag in values]

    trained = [e for e in events if isinstance(e, Train)]
    assert series("train/loss") == [(e.t_wall, e.step, float32(e.loss)) for e in trained]
    assert series("train/ce") == [(e.t_wall, e.step, float32(e.ce)) for e in trained]
    assert series("train/lr") == [(e.t_wall, e.step, float32(e.lr)) for e in trained]
    rates = [(e.t_wall, e.step, float32(e.images / e.window_s)) for e in trained]
    assert series("train/images_per_s") == rates
    shares = [(e.t_wall, e.step, float32(e.data_wait_s / e.window_s)) for e in trained]
    assert series("train/data_wait_share") == shares
    own = [e for e in events if isinstance(e, Eval) and e.protocol == "shorter73_crop64"]
    assert series("eval/top1") == [
        (e.t_wall, e.step, float32(100 * e.correct1 / e.count)) for e in own
    ]


@pytest.mark.parametrize("form", ["csv", "mllog", "tensorboard"])
def test_absurd_numbers_are_no_traceback(form, tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path / "logs")
    lines = (folder / "events.jsonl").read_text().splitlines()
    strange = [
        {"loss": "NaN", "ce": "-Infinity", "t_wall": "Infinity", "epoch": 1e300, "step": 10**30},
        {"images": 10**300, "window_s": 1e-320, "t_wall": 1e306, "lr": 1e39, "epoch": "Infinity"},
    ]
    trained = [i for i, line in enumerate(lines) if '"kind":"train"' in line]
    for i, change in zip(trained, strange, strict=False):
        lines[i] = json.dumps(json.loads(lines[i]) | change)
    (folder / "events.jsonl").write_text("\n".join([*lines, "\x00", ""]))
    done = export(folder, "--to", form, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    if form == "mllog":
        _, errors = parse_file(str(tmp_path / "out"), ruleset="6.1.0")
        assert errors == [] and "NaN" not in (tmp_path / "out").read_text()


def test_wrong_use_of_export(run, tmp_path):
    wrong = [
        [run.parent.parent / "none", "--to", "csv"],
        [run, "--to", "tensorboard"],
        [run, "--to", "wandb"],
    ]
    for arguments in wrong:
        done = export(*arguments)
        assert done.returncode == Exit.USAGE and done.stderr.count("\n") == 1
