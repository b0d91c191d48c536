"""Files and flags that align.py was not made for: one line, its own exit code, nothing run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from alignments import VERDICT
from test_align import golden

from proofrun.alignment import Alignment
from proofrun.errors import Exit, ProofrunError
from tools._align import cli
from tools._align.trace import Trace, TraceError, load

ROOT = Path(__file__).resolve().parent.parent
TOOL = [sys.executable, str(ROOT / "tools" / "align.py")]


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def claiming(shape: str) -> bytes:
    """An .npy file whose header says more than there is."""
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text = (words + " " * (-(len(words) + 11) % 64) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def packed(path: Path, **members: bytes) -> None:
    """The committed trace with other members."""
    with zipfile.ZipFile(golden()) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in ("header", "stats", "scalars"):
            new.writestr(f"{name}.npy", members.get(name) or old.read(f"{name}.npy"))


def array_alone(path: Path) -> None:
    path.write_bytes(npy(np.zeros(3)))


def members_of_text(path: Path) -> None:
    packed(path, header=b"no array", stats=b"no array", scalars=b"no array")


def deep_header(path: Path) -> None:
    packed(path, header=npy(np.frombuffer(b"[" * 200_000, dtype=np.uint8)))


def claims_40_tib(path: Path) -> None:
    packed(path, stats=claiming("(11, 1, 1008, 1000000000)"))


def odd_header(path: Path) -> None:
    packed(path, stats=claiming("(((("))


def bomb(path: Path) -> None:
    packed(path, stats=npy(np.zeros(40 << 20, dtype="<f4")))


def huge_numbers(path: Path) -> None:
    trace = load(golden())
    packed(path, stats=npy(np.full(trace.stats.transpose(3, 0, 2, 1).shape, 1e300)))


def a_folder(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (array_alone, "is no trace of align.py"),
        (members_of_text, "is damaged (an array of it cannot be read)"),
        (deep_header, "its header is damaged"),
        (claims_40_tib, "is damaged"),
        (odd_header, "is damaged"),
        (bomb, "unpacks to more than 100 times its size"),
        (huge_numbers, "do not fit its header"),
        (a_folder, "is no file"),
        (a_fifo, "is no file"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_trace_is_a_line(tmp_path, make, said, first):
    path = tmp_path / "x.npz"
    make(path)
    both = [path, golden()] if first else [golden(), path]
    with pytest.raises(TraceError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        cli.main(["diff", *map(str, both)])
    assert caught.value.exit_code == Exit.BAD_TRACE
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert "pickle" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_is_no_trace_and_nobody_is_told_to_load_it(tmp_path):
    (tmp_path / "x.npz").write_text("some words")
    with pytest.raises(TraceError, match=r"is no trace of align\.py"):
        load(tmp_path / "x.npz")


def saved(
    path: Path, precision: str = "FP32", old: str = "", new: str = "", **made: object
) -> Path:
    """The committed trace as another, one row renamed."""
    trusted = load(golden())
    changed = trusted.header.model_copy(
        update={
            "made": trusted.header.made.model_copy(update={"precision": precision, **made}),
            "rows": tuple(
                row.model_copy(update={"name": new}) if row.name == old else row
                for row in trusted.rows
            ),
        }
    )
    Trace(changed, trusted.stats, trusted.scalars).save(path)
    return path


def test_words_of_strangers_are_shown_as_text(tmp_path, capsys):
    """A forged line, colours, rich's markup, matplotlib's formulas."""
    name = "features.inception4b.b1x1.relu"
    forged = {"device_name": "A\x1b[31m\nnot aligned: [/bold] $x^$"}
    both = []
    for path, factor in (("a.npz", 1.0), ("b.npz", 2.0)):
        saved(tmp_path / path, old=name, new="[/nope] $\\frac$", **forged)
        trace = load(tmp_path / path)
        Trace(trace.header, trace.stats * factor, trace.scalars).save(tmp_path / path)
        both.append(str(tmp_path / path))
    assert cli.main(["diff", *both, "--plot", str(tmp_path / "p.png")]) == Exit.VERDICT
    said = capsys.readouterr().out
    assert "\x1b" not in said and "A[31m not aligned: [/bold]" in said


def test_a_time_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(TraceError, match="its header is damaged"):
        load(saved(tmp_path / "x.npz", took_s=1e308))


def test_an_unknown_precision_names_the_trace(tmp_path):
    path = saved(tmp_path / "x.npz", precision="INT4")
    with pytest.raises(TraceError) as caught:
        cli.main(["diff", str(golden()), str(path)])
    assert f"{path}: is in INT4, and bounds of GoogLeNet are known in FP32" in str(caught.value)


def test_a_trusted_trace_that_is_not_finite(tmp_path):
    trusted = load(golden())
    Trace(trusted.header, trusted.stats * np.nan, trusted.scalars).save(tmp_path / "nan.npz")
    with pytest.raises(TraceError, match="numbers that are not finite; record that one again"):
        cli.main(["diff", str(tmp_path / "nan.npz"), str(golden(precision="FP32"))])


@pytest.mark.parametrize(
    "words",
    [
        "record GoogLeNet --batch 1", "record GoogLeNet --batch 0", "record GoogLeNet --steps 5000",
        "record GoogLeNet --steps 1", "record GoogLeNet --seed -1", "input GoogLeNet --count 0",
        "input GoogLeNet --count -3", "replay GoogLeNet --ranks 0", "replay GoogLeNet --ranks -1",
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_a_usage_error(words):
    with pytest.raises(ProofrunError, match="is no whole number from") as caught:
        cli.main(words.split())
    assert caught.value.exit_code == Exit.USAGE


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """An interpreter that has what `diff` needs, and no torch and no matplotlib."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    import pydantic

    theirs = Path(pydantic.__file__).parent.parent
    for name in (
        "pydantic", "pydantic_core", "annotated_types", "typing_extensions.py", "yaml", "numpy",
        "typing_inspection", "numpy.libs", "rich", "markdown_it", "mdurl", "pygments",
    ):  # fmt: skip
        if (theirs / name).exists():
            (site / name).symlink_to(theirs / name)
    return folder / "bin" / "python"


def without(bare: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """PYTHON is the user's own word: the checkout's .venv does not step in."""
    line = [str(bare), *TOOL[1:], *map(str, words)]
    own = {**os.environ, "PYTHON": str(bare)}
    return subprocess.run(line, env=own, capture_output=True, text=True)


def test_without_torch_and_matplotlib(bare, tmp_path):
    both = ["diff", golden(), golden(precision="FP32")]
    done = without(bare, *both)
    assert done.returncode == Exit.OK and "aligned" in done.stdout, done.stderr
    for words, lacks in (
        ([*both, "--plot", tmp_path / "p.png"], "lacks matplotlib:"),
        (["replay", "GoogLeNet"], "lacks torch"),
        (["record", "GoogLeNet", "--out", tmp_path / "x.npz"], "lacks torch"),
        (["input", "GoogLeNet"], "lacks torch"),
    ):
        done = without(bare, *words)
        assert done.returncode == Exit.NOT_INSTALLED and lacks in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("number", "after_s"),
    [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.0), (signal.SIGTERM, 0.3), (signal.SIGTERM, 4.0)],
)
def test_stopped_it_says_so_and_leaves_nobody(tmp_path, number, after_s):
    """Two ranks by torchrun; the signal goes to the command alone."""
    out = tmp_path / "x.npz"
    line = [*TOOL, "record", "GoogLeNet", "--ranks", "2", "--out", str(out)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    own = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while len(children := own.children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(after_s)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert said == "align.py: stopped; give the same command again\n"
    assert len(children) >= 3
    _, alive = psutil.wait_procs(children, timeout=40)
    assert not alive and not out.exists()


def test_a_verdict_of_strangers_is_a_line():
    forged = Alignment.model_validate(VERDICT | {"finding": "a\nb\x1b[31m", "aligned": False})
    assert forged.line().isprintable()
