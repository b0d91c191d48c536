"""What align.py writes over and what it leaves alone, asked before it computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alignments import VERDICT
from test_align import golden

from proofrun.errors import Exit, UsageError
from tools._align import cli
from tools._align.trace import Trace, load

FOREIGN = b"somebody's own"


def refused(*words: object) -> str:
    with pytest.raises(UsageError) as caught:
        cli.main(list(map(str, words)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def replayed(path: Path) -> None:
    """A trace as a replay leaves it."""
    trusted = load(golden())
    made = trusted.header.made.model_copy(update={"note": "replayed"})
    Trace(trusted.header.model_copy(update={"made": made}), trusted.stats, trusted.scalars).save(
        path
    )


def test_record_leaves_the_committed_trace_alone():
    before = golden().read_bytes()
    assert "with --force" in refused("record", "GoogLeNet", "--steps", "2")
    assert golden().read_bytes() == before


def test_record_replaces_a_trace_with_force_alone(tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(golden().read_bytes())
    line = ["record", "GoogLeNet", "--steps", "2", "--batch", "2", "--out", path]
    assert "is there already" in refused(*line)
    assert cli.main([*map(str, line), "--force"]) == Exit.OK
    assert load(path).steps == 2
    path.write_bytes(FOREIGN)
    assert "is not a trace of align.py" in refused(*line, "--force")
    assert path.read_bytes() == FOREIGN


@pytest.mark.parametrize("name", ["README.md", "trace.json", "trace"])
def test_a_replay_is_called_npz(tmp_path, name):
    (tmp_path / name).write_bytes(FOREIGN)
    assert "a trace is an .npz file" in refused("replay", "GoogLeNet", "--out", tmp_path / name)
    assert (tmp_path / name).read_bytes() == FOREIGN


def test_a_replay_replaces_replays_alone(tmp_path):
    path = tmp_path / "x.npz"
    line = ["replay", "GoogLeNet", "--device", "CPU", "--quick", "--out", path]
    path.write_bytes(FOREIGN)
    assert "is not a replay of align.py" in refused(*line)
    path.write_bytes(golden().read_bytes())
    assert "is not a replay of align.py" in refused(*line)
    assert "is not a replay" in refused(*line[:-1], golden())
    replayed(path)
    assert "is not a replay" in refused(*line, "--against", path)
    (tmp_path / "x.json").write_bytes(FOREIGN)
    assert "is not a verdict of align.py" in refused(*line)
    (tmp_path / "x.json").write_text(json.dumps(VERDICT))
    assert cli.main(list(map(str, line))) == Exit.OK
    assert json.loads((tmp_path / "x.json").read_text())["t_wall"] > 1


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_replaces_its_own_alone(tmp_path, suffix, capsys):
    path = tmp_path / f"p{suffix}"
    line = ["diff", golden(), golden(precision="FP32"), "--plot", path]
    path.write_bytes(FOREIGN)
    assert "is not a picture of align.py" in refused(*line)
    assert path.read_bytes() == FOREIGN
    path.unlink()
    for _ in range(2):
        assert cli.main(list(map(str, line))) == Exit.OK
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    "words",
    [
        ["diff", golden(), golden(precision="FP32"), "--plot"],
        ["replay", "GoogLeNet", "--device", "CPU", "--plot"],
        ["input", "GoogLeNet", "--dir", "nowhere", "--out"],
    ],
)
def test_a_picture_is_called_png_or_svg_before_it_is_computed(tmp_path, words):
    assert "name it .png or .svg" in refused(*words, tmp_path / "x.txt")
    assert "name it .png or .svg" in refused(*words, tmp_path)  # a folder
    (tmp_path / "folder.png").mkdir()
    assert "is not overwritten" in refused(*words, tmp_path / "folder.png")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]
