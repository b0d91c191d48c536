"""Traces, bounds, looks and the command line of align.py: on numbers, without training."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from proofrun.errors import Exit, ProofrunError
from tools._align import alarms, bounds, cli, home, look, rule, streams
from tools._align.diff import compare
from tools._align.plot import spread
from tools._align.trace import SCALARS, STATS, Row, Trace, TraceError, load

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("GoogLeNet", "Inceptionv2")


def golden(recipe: str = "GoogLeNet", precision: str = "FP64") -> Path:
    return home.REPORTS / f"{recipe}-Digits-{precision}.npz"


def statistics(values: np.ndarray, name: str, axis: int) -> np.ndarray:
    """The row of STATS of an array, in numpy: what the probe has to measure."""
    table = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
    made = streams.vectors(name, table.shape[1], table.shape[0])
    sums = made.places.astype(np.float64) @ table
    root = np.sqrt(table.size)
    plain = (sums * made.channels).sum(1) / root
    ramped = (sums * made.channels * streams.ramp(table.shape[1])).sum(1) / root
    inner = 0.0
    if values.ndim == 4 and min(values.shape[2:]) > 2:
        inner = np.sqrt(np.square(values[:, :, 1:-1, 1:-1].astype(np.float64)).mean())
    single = [table.mean(), np.sqrt((table**2).mean()), np.abs(table).max(), inner]
    return np.array([*single, (table == 0).mean(), *plain, *ramped])


def test_streams_are_what_they_were_when_the_golden_traces_were_made():
    assert streams.words(2, "a", 1).tolist() == [12100088058179327416, 5170796255665330153]
    made = streams.batch(3, 0, 2, 64, 10, 0)
    assert made.pixels.shape == (2, 64, 64, 3) and made.labels.max() < 10
    assert (made.pixels != streams.batch(3, 1, 2, 64, 10, 0).pixels).mean() > 0.5
    weight = streams.weight("features.conv1.conv.weight", (64, 3, 7, 7), 0)
    assert abs(weight).max() <= np.sqrt(6 / 147) and abs(weight.mean()) < 0.01


def test_balanced_projections_do_not_see_a_shifted_channel():
    made = streams.vectors("layer", 8, 36)
    assert made.places[0].sum() == 36 and np.abs(made.places[1:].sum(axis=1)).max() == 0
    assert set(np.unique(made.channels)) == {-1.0, 1.0}


NOISE = np.random.default_rng(7)
LAYER = NOISE.standard_normal((8, 32, 10, 10)) + 1.0


def border(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[:, :, 0] *= 1.5
    changed[:, :, -1] *= 1.5
    return changed


def channel(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[:, 11] *= 1.1
    return changed


def bfloat(values: np.ndarray, bits: int) -> np.ndarray:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent)


@pytest.mark.parametrize(
    ("change", "sort", "says"),
    [
        (lambda x: x * 1.001, "scale", "times 1.001"),
        (lambda x: -x, "sign", "turned"),
        (lambda x: x + 0.01, "offset", "plus 0.01"),
        (lambda x: x + NOISE.standard_normal(32)[:, None, None], "offset in each channel", "shift"),
        (channel, "one channel", "channel 11 of 32"),
        (border, "borders", "within the map"),
        (lambda x: bfloat(x, 8), "rounding", "mantissa bits"),
        (lambda x: x + NOISE.standard_normal(x.shape), "scattered", "relative error"),
        (lambda x: np.maximum(x, 0), "zeros", "zeros became"),
        (lambda x: x * np.nan, "not finite", "nan"),
    ],
)
def test_a_deviation_is_called_by_its_name(change, sort, says):
    row = Row(name="features.conv1.conv", kind="output", shape=LAYER.shape)
    found = look.look(
        statistics(LAYER, row.name, 1), statistics(change(LAYER), row.name, 1), row, LAYER.shape
    )
    assert found.sort == sort and says in found.says, found


@pytest.mark.parametrize(
    ("factor", "noise", "says"),
    [(0.9, 1e-5, "1.9 times as far"), (-1.0, 0.0, "moves 0 times"), (0.9, 1.0, None)],
)
def test_an_update_is_compared_with_the_trusted_one(factor, noise, says):
    draw = np.random.default_rng(1)
    update = draw.standard_normal(len(STATS))
    found = look.of_update(factor * update + noise * draw.standard_normal(len(STATS)), update)
    assert found is None if says is None else found and says in found.says


def test_patterns_are_rarely_seen_in_noise():
    """A random deviation that is no rounding is called scattered in nearly all cases."""
    row = Row(name="features.conv1.conv", kind="output", shape=LAYER.shape)
    before = statistics(LAYER, row.name, 1)
    named = []
    for _ in range(200):
        after = before.copy()
        after[5:] += 0.1 * NOISE.standard_normal(6)
        named.append(look.look(before, after, row, LAYER.shape).sort)
    assert named.count("scattered") >= 180, named


def test_an_offset_is_seen_through_rounding():
    """Though a scale beside it explains a little of the rounding too."""
    row = Row(name="features.conv1.bn.bias", kind="moment", shape=(64,))
    table = NOISE.standard_normal(64)
    before = statistics(table, row.name, 0)
    named = []
    for _ in range(100):
        after = statistics(table + 0.01 + 0.002 * NOISE.standard_normal(64), row.name, 0)
        named.append(look.look(before, after, row, row.shape).sort)
    assert named.count("offset") >= 85, named


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ([0, 2, 4, 8, 16, 32, 64], "growing, x2.00 a step"),
        ([0, 5, 5, 6, 5, 5, 5], "stays"),
        ([0, 5, 0, 0, 0, 0, 0], "in 1 of 6 steps"),
    ],
)
def test_how_it_goes_on(series, said):
    assert look.over_steps(np.array(series, dtype=float), 1) == said


def first_steps(kind: str, excess: list[float], added: list[float] | None = None) -> int:
    """Of one tensor over the steps: where an alarm begins, -1 without."""
    values = np.array(excess)[:, None]
    new = values if added is None else np.array(added)[:, None]
    return int(rule.first_steps(values, new, [kind])[0])


@pytest.mark.parametrize(
    ("kind", "excess", "step"),
    [
        ("output", [0.1, 0.2, 0.1], -1),
        ("output", [5.0, 5.0, 5.0], 0),
        ("output", [0.1, 5.0, 5.0], 1),  # quick: 2 of 3
        ("output", [5.0, 0.1, 5.0], 0),
        ("grad", [40.0, 0.1, 0.1], -1),  # a ReLU decided the other way
        ("grad", [0.1, 0.1, 40.0], -1),
        ("grad", [40.0, *[0.1] * 18, 40.0], -1),  # two in 20 steps
        ("grad", [*[0.1] * 14, 40.0, 0.1, 0.1, 40.0, 0.1, 0.1], -1),
        ("grad", [0.1, 0.1, *[9.0, 0.1, 0.1, 0.1] * 4, 9.0, 0.1], 2),  # a quarter
        ("grad_norm", [0.1, 3.0, 0.1], -1),
        ("loss", [0.1, 3.0, 0.1], -1),
        ("loss", [3.0, 3.0, 3.0], 0),
        ("lr", [0.0, 0.0, 2.0], 2),  # exact: once is enough
        ("output", [0.1, 1e5, 0.1], 1),  # no ReLU does that
        ("output", [0.1, np.inf, 0.1], 1),  # another shape, missing, not finite
        ("weight", [30.0] * 20, 0),  # the update's own, and stays
    ],
)
def test_an_alarm_comes_again(kind, excess, step):
    assert first_steps(kind, excess) == step


def moments(steps: int, wrong: dict[int, float], decay: float = 0.0) -> np.ndarray:
    """(1, steps, 1, len(STATS)) of a moment whose gradients are off by a factor in some steps."""
    draw = np.random.default_rng(3)
    moment, found = np.zeros((16, 9)), []
    for step in range(steps):
        moment = 0.9 * moment + draw.standard_normal((16, 9)) * wrong.get(step, 1.0) + decay
        found.append([statistics(moment, "m", 0)])
    return np.array([found])


@pytest.mark.parametrize(
    ("wrong", "decay", "step"),
    [
        ({0: 1.2}, 0.0, -1),  # out of bounds in most of the steps, by what is left of the first
        ({}, 0.002, 0),
        (dict.fromkeys(range(20), 1.05), 0.0, 0),
    ],
)
def test_a_moment_is_not_blamed_for_what_it_keeps(wrong, decay, step):
    rows = [Row(name="m", kind="moment", shape=(16, 9))]
    mine, theirs = moments(20, {}), moments(20, wrong, decay)
    limit = np.full((1, len(bounds.DEVIATIONS)), 1e-3)
    apart, new = bounds.deviations(mine, theirs, rows), bounds.added(mine, theirs, rows)
    excess, new = bounds.shares(apart, new, limit, rows)
    assert (excess > 1).sum() > 9
    assert rule.first_steps(excess, new, ["moment"]).tolist() == [[step]]


def test_both_recipes_keep_what_the_rule_thinks():
    for model in RECIPES:
        _, recipe = home.find(model, "Digits")
        assert recipe.optimizer.momentum == bounds.KEPT["moment"]


def changed(trace: Trace, steps: int | None = None, **row: object) -> Trace:
    stats = trace.stats[:, :steps].copy()
    for index, r in enumerate(trace.rows):
        if r.name == row["name"] and r.kind == row["kind"]:
            stats[:, row["step"] : row.get("until"), index] *= row["factor"]
    made = trace.header.made.model_copy(update={"precision": "FP32"})
    header = trace.header.model_copy(update={"made": made})
    return Trace(header, stats, trace.scalars[:, :steps])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_committed_traces_are_aligned_with_each_other(recipe, capsys):
    assert cli.main(["diff", str(golden(recipe)), str(golden(recipe, "FP32"))]) == Exit.OK
    assert "aligned: no tensor" in capsys.readouterr().out


def test_golden_traces_take_no_more_than_five_megabytes():
    sizes = [path.stat().st_size for path in home.REPORTS.glob("*.npz")]
    assert len(sizes) == 4 and sum(sizes) <= 5_000_000


def test_the_first_place_is_the_first_in_the_order_of_the_computation():
    trusted = load(golden())
    known = bounds.read(home.REPORTS / "bounds-GoogLeNet-Digits.json")
    place = {"name": "features.inception4b.b1x1.conv.weight", "kind": "weight_grad"}
    found = compare(trusted, changed(trusted, step=4, factor=2.0, **place), known, Path("x"))
    assert found.first is not None
    assert (found.first.step, found.first.place.name) == (4, place["name"])
    assert found.first.place.direction == "backward"
    assert found.first.look == ("scale", "times 2")
    assert found.first.over_steps == "stays"
    unchanged = changed(trusted, steps=3, step=0, factor=1.0, **place)
    assert compare(trusted, unchanged, known, Path("x")).aligned


def test_what_is_out_once_is_a_remark(tmp_path, capsys):
    trusted = load(golden())
    once = {"name": "features.inception4b.b1x1.relu", "kind": "grad", "step": 4, "until": 5}
    changed(trusted, factor=1.1, **once).save(tmp_path / "once.npz")
    line = ["diff", str(golden()), str(tmp_path / "once.npz"), "--plot", str(tmp_path / "p.png")]
    assert cli.main(line) == Exit.OK
    said = " ".join(capsys.readouterr().out.split())
    assert "aligned: 1 of" in said and "bound at step 4, out in 1 of 20 steps: no alarm" in said
    with pytest.raises(TraceError, match="1 step in common"):
        one = changed(trusted, steps=1, factor=1.1, **once)
        compare(trusted, one, bounds.read(home.REPORTS / "bounds-GoogLeNet-Digits.json"), Path("x"))


def test_a_series_keeps_what_the_rule_needs():
    trusted = load(golden())
    known = bounds.read(home.REPORTS / "bounds-GoogLeNet-Digits.json")
    place = {"name": "features.inception4b.b1x1.relu", "kind": "grad", "step": 1}
    judge = alarms.Judge(known, "FP32", trusted.rows)
    for until, names in ((2, []), (3, [f"grad {place['name']}"])):
        other = changed(trusted, steps=3, factor=1.1, until=until, **place)
        short = Trace(trusted.header, trusted.stats[:, :3], trusted.scalars[:, :3])
        series = alarms.pack(short, other)
        assert judge.alarms(series) == names
        excess, _ = judge.excess(series)
        whole = compare(trusted, other, known, Path("x"))
        assert excess.max() == pytest.approx(whole.nearest, rel=0.02)
        assert whole.aligned == (not names)


def test_later_steps_have_bounds_of_their_own():
    rows = [Row(name="a.conv", kind="output", shape=(8, 4))]
    deviations = {"output a conv": (1e-3,) * 4}
    loss = dict.fromkeys(SCALARS, 1e-4)
    early = bounds.Phase(rows=deviations, scalars=loss)
    late = bounds.Phase(rows={k: (5e-3,) * 4 for k in deviations}, scalars=loss)
    of = bounds.PrecisionBounds(runs=1, how="", phases=(early, late))
    limit = bounds.limits(of, 4.0, rows, 20)[:, 0, 0]
    first = bounds.PHASES[1]
    assert limit.tolist() == [4e-3] * first + [2e-2] * (20 - first)
    single = bounds.scalar_limits(of, 4.0, 20)
    assert single.shape == (20, len(SCALARS))
    assert (single[:, SCALARS.index("lr")] == 1e-9).all()
    assert bounds.merged([early, late]) == late


def test_bf16_bounds_are_wider_than_tf32_and_tf32_than_fp32():
    for recipe in RECIPES:
        known = bounds.read(home.REPORTS / f"bounds-{recipe}-Digits.json")
        assert known.margin == bounds.MARGIN
        key = "output inception4b conv"
        wide = [known.precisions[p].phases[0].rows[key][0] for p in ("BF16", "TF32", "FP32")]
        assert wide == sorted(wide, reverse=True), (recipe, wide)


def test_diff_draws_and_ends_with_1(tmp_path, capsys):
    trusted = load(golden())
    bad = changed(trusted, step=2, factor=1.01, name="features.pool2", kind="output")
    bad.save(tmp_path / "bad.npz")
    line = ["diff", str(golden()), str(tmp_path / "bad.npz"), "--plot", str(tmp_path / "p.png")]
    assert cli.main(line) == Exit.VERDICT
    said = capsys.readouterr().out
    assert "features.pool2" in said and "scale" in said and "not aligned: step 2" in said
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "bytes":
        path.write_bytes(raw[:2000] + bytes(500) + raw[2500:])
    elif how == "text":
        path.write_text("no trace")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other arrays":
        np.savez(path.open("wb"), weights=np.zeros(3))
    elif how == "pickle":
        np.savez(path.open("wb"), header=np.array([{"a": 1}], dtype=object))
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    "how", ["cut", "bytes", "text", "empty", "other arrays", "pickle", "missing"]
)
def test_a_damaged_trace_ends_with_one_line(tmp_path, how):
    path = tmp_path / "trace.npz"
    path.write_bytes(golden().read_bytes())
    damage(path, how)
    with pytest.raises(TraceError) as caught:
        cli.main(["diff", str(golden()), str(path)])
    assert caught.value.exit_code == Exit.BAD_TRACE
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ranks", 1, None),
        ("seed", 5, "has seed 5, the trusted trace 0"),
        ("weights_hash", "0" * 64, "weights_hash 000000000000"),
        ("batch", 16, "has batch 16"),
    ],
)
def test_a_foreign_trace_is_refused(tmp_path, key, value, said):
    trusted = load(golden())
    of = trusted.header.exercise.model_copy(update={key: value})
    made = trusted.header.made.model_copy(update={"precision": "FP32"})
    header = trusted.header.model_copy(update={"exercise": of, "made": made})
    path = tmp_path / "other.npz"
    Trace(header, trusted.stats, trusted.scalars).save(path)
    if said is None:
        assert cli.main(["diff", str(golden()), str(path)]) == Exit.OK
        return
    with pytest.raises(TraceError, match=said):
        cli.main(["diff", str(golden()), str(path)])


def test_a_trace_of_another_network_is_refused(tmp_path):
    with pytest.raises(TraceError, match="recipe Inceptionv2, the trusted trace GoogLeNet"):
        cli.main(["diff", str(golden()), str(golden("Inceptionv2", "FP32"))])


def test_a_saved_trace_reads_back_equal(tmp_path):
    trusted = load(golden())
    trusted.save(tmp_path / "again.npz")
    again = load(tmp_path / "again.npz")
    assert again.header == trusted.header
    assert np.array_equal(again.stats, trusted.stats)
    assert again.stats.shape[-1] == len(STATS)


def test_diff_needs_no_torch():
    """Read on another machine without torch: the module is made impossible to import."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, 'tools')\n"
        "from _align.cli import main\n"
        f"sys.exit(main(['diff', {str(golden())!r}, {str(golden(precision='FP32'))!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "aligned" in done.stdout


def test_without_a_trusted_trace_it_says_how_to_make_one():
    with pytest.raises(ProofrunError, match=r"align\.py record GoogLeNet --data Digits --ranks 3"):
        cli.main(["replay", "GoogLeNet", "--ranks", "3"])
    with pytest.raises(ProofrunError, match="there are: GoogLeNet"):
        cli.main(["replay", "ResNet"])


def test_labels_of_small_blocks_stay_apart():
    for middles in ([0, 0.5, 1, 9, 9.5, 10], [10.0] * 6, [0.0] * 5, [3, 7]):
        found = spread(middles, 1, 10)
        assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(found))
        assert found[0] >= 0 and found[-1] <= 10
    assert spread([3, 7], 1, 10) == [3, 7]
