"""What align.py writes over and what it leaves alone, asked before it computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alignments import VERDICT
from test_align import golden

from proofrun.errors import Exit, UsageError, WriteError
from tools._align import cli
from tools._align.trace import Trace, TraceError, load

FOREIGN = b"somebody's own"
TOOL = str(Path(__file__).resolve().parent.parent / "tools" / "align.py")


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


def test_the_default_place_is_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PROOFRUN_LOGS", str(tmp_path))
    path = tmp_path / "align" / "GoogLeNet-Digits_FP32_1CPU_quick.json"
    path.parent.mkdir()
    path.write_bytes(FOREIGN)
    line = ["replay", "GoogLeNet", "--device", "CPU", "--quick"]
    assert "is not a verdict of align.py" in refused(*line)
    assert path.read_bytes() == FOREIGN


def test_another_trusted_trace_has_a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PROOFRUN_LOGS", str(tmp_path))
    mine = tmp_path / "mine.npz"
    mine.write_bytes(golden().read_bytes())
    line = ["replay", "GoogLeNet", "--device", "CPU", "--quick", "--against"]
    assert cli.main([*line, str(mine)]) == Exit.OK
    assert cli.main([*line, str(golden())]) == Exit.OK
    stem = "GoogLeNet-Digits_FP32_1CPU"
    names = sorted(path.name for path in (tmp_path / "align").glob("*.json"))
    assert names == [f"{stem}_against-another_quick.json", f"{stem}_quick.json"]


def test_a_trace_of_other_size_is_refused_before_it_is_replayed(tmp_path, monkeypatch):
    """And says so by what was asked for, not by a hash."""
    small, out = tmp_path / "small.npz", tmp_path / "x.npz"
    replayed(out)
    before = out.read_bytes()
    line = ["record", "GoogLeNet", "--steps", "2", "--ranks", "2", "--out", str(small)]
    subprocess.run([sys.executable, TOOL, *line], check=True, capture_output=True)
    with pytest.raises(TraceError, match=r"has ranks 1, the trusted trace 2"):
        cli.main(["replay", "GoogLeNet", "--device", "CPU", "--against", str(small),
                  "--out", str(out)])  # fmt: skip
    assert out.read_bytes() == before


@pytest.mark.parametrize("folder", ["mine.txt", "/proc"])
def test_what_was_computed_is_said_where_it_cannot_be_written(tmp_path, folder, capsys):
    (tmp_path / "mine.txt").write_bytes(FOREIGN)
    out = tmp_path / folder / "x.npz"
    with pytest.raises(WriteError, match="give another --out"):
        cli.main(["replay", "GoogLeNet", "--device", "CPU", "--quick", "--out", str(out)])
    assert "aligned: " in capsys.readouterr().out


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
