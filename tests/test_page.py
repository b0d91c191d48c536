"""The report page: its links to log lines, its script and policy, and bounded reading."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import io
import itertools
import json
import re
import sys
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_logs import FakeRun, imagenet, quickstart
from report_tool import report
from test_report import DIGITS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from _report import plots, words  # noqa: E402
from _report.build import build  # noqa: E402
from _report.curves import figures  # noqa: E402
from _report.evidence import Source, lines_at, read_lines, relative_link  # noqa: E402
from _report.grids import grids  # noqa: E402
from _report.read import read_logs  # noqa: E402
from _report.verdict import Verdict  # noqa: E402


class Page(HTMLParser):
    """Ids, links and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.policy = ""
        self.script = ""
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.inside.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if "href" in found:
            self.links.append(found["href"])
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_data(self, data):
        if self.inside[-1:] == ["script"]:
            self.script += data

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass


def made(logs: Path, *flags: str) -> tuple[str, Page]:
    done = report(logs, *flags, draw=True)
    assert done.returncode == 0, done.stderr
    text = (logs / "report" / "report.html").read_text()
    return text, Page(text)


def test_every_number_links_to_its_lines_and_back(tmp_path):
    for number, top1 in enumerate((98.0, 98.5, 99.0), 1):
        FakeRun(DIGITS, number=number, seed=number, top1=top1).write(tmp_path)
    text, page = made(tmp_path)
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert len(inside) > 20
    for link in page.links:
        if not link.startswith("#"):
            assert (tmp_path / "report" / link).is_file()
    lines = (tmp_path / DIGITS / "001" / "events.jsonl").read_text().splitlines()
    last = max(i for i, line in enumerate(lines, 1) if '"why":"final"' in line)
    (shown,) = re.findall(rf"{DIGITS}/001/events.jsonl:{last}</a><code>(.*?)</code>", text)
    assert shown.replace("&quot;", '"').startswith(lines[last - 1][:500])
    assert text.count(f"{DIGITS}/001/events.jsonl:{last}</a><code>") == 1


def test_the_script_is_allowed_by_its_hash_alone(tmp_path):
    FakeRun(DIGITS).write(tmp_path)
    _, page = made(tmp_path)
    assert page.script.strip() == (ROOT / "tools/_report/script.js").read_text().strip()
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy and "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy.partition("script-src")[2].partition(";")[0]


def test_a_line_may_hold_anything(tmp_path):
    """Markup, control and bidirectional characters, a line of megabytes: shown clean and cut."""
    folder = FakeRun(DIGITS).write(tmp_path)
    file = folder / "events.jsonl"
    evil = '</code><script>alert("1")</script>'
    lines = file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"why":"final"' in line)
    lines[at] = lines[at].replace(
        '{"schema"', '{ \t"prediction_hash":"' + evil.replace('"', "'") + '","schema"'
    )
    file.write_text("\n".join(lines) + "\n")
    text, page = made(tmp_path)
    assert text.count("<script") == 1 and len(page.ids) == len(set(page.ids))
    file.write_bytes(b"a\x00b\xe2\x80\xaec\xff" + b"x" * 5_000_000 + b"\n")
    ((_, shown),) = read_lines(tmp_path, [Source.parse(f"{DIGITS}/001/events.jsonl:1")]).items()
    assert shown.startswith("abc�xxx") and len(shown) == 601 and shown.endswith("…")


def test_lines_are_found_across_blocks_and_in_bounded_memory(monkeypatch):
    text = b"".join(b"%d " % i + b"y" * (i % 7) + b"\n" for i in range(1, 2001)) + b"last"
    whole = text.split(b"\n")
    for block in (1, 7, 1 << 20):
        monkeypatch.setattr("_report.evidence._BLOCK", block)
        wanted = {1, 2, 77, 2000, 2001} if block > 1 else {1, 2, 30}
        found = lines_at(io.BytesIO(text), wanted | {5000})
        assert found == {n: whole[n - 1] for n in wanted}
    monkeypatch.undo()
    big = io.BytesIO(b"z" * 40_000_000 + b"\nend\n")
    tracemalloc.start()
    assert lines_at(big, {2}) == {2: b"end"}
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_compressed_damaged_and_missing_logs(tmp_path):
    whole = b"".join(b'{"n": %d}\n' % i for i in range(1, 5000))
    (tmp_path / "plain.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "renamed.jsonl.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(whole)[:60])
    wanted = [
        "plain.gz:3",
        "renamed.jsonl:7-9",
        "cut.gz:4000",
        "none:1",
        "no source",
        "x:y-z",
        "a:9-",
    ]
    found = read_lines(tmp_path, [Source.parse(text) for text in wanted])
    assert found == {
        ("plain.gz", 3): '{"n": 3}',
        ("renamed.jsonl", 7): '{"n": 7}',
        ("renamed.jsonl", 9): '{"n": 9}',
    }


@pytest.mark.parametrize(
    ("page", "file", "link"),
    [
        ("logs/report", "logs/run/001/events.jsonl", "../run/001/events.jsonl"),
        ("logs/report/some", "logs/run/001/events.jsonl", "../../run/001/events.jsonl"),
        (".", "logs/run/001/events.jsonl", "logs/run/001/events.jsonl"),
        (".", 'logs/java:x"#?/e', "logs/java%3Ax%22%23%3F/e"),
        ("elsewhere/far/away", "logs/run/001/events.jsonl", ""),
        ("logs/report", "logs/../secret", ""),
    ],
)
def test_links_lead_to_logs_below_or_beside_the_page(tmp_path, page, file, link):
    assert relative_link(tmp_path / file, tmp_path / "logs", tmp_path / page) == link


def test_a_page_of_long_runs_stays_small(tmp_path):
    imagenet(tmp_path)
    text, page = made(tmp_path)
    assert len(text) < 600_000
    assert {"accuracy", "throughput", "mark", "curves", "evidence"} <= set(page.ids)


def spoken_words() -> set[str]:
    """Every literal that the renderers give to `say`."""
    found = set()
    for path in (ROOT / "tools" / "_report").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                inner = [child for argument in node.args for child in ast.walk(argument)]
                found |= {n.value for n in inner if isinstance(n, ast.Constant)}
    return {word for word in found if isinstance(word, str)}


def test_every_fixed_word_has_a_translation(tmp_path):
    quickstart(tmp_path)
    FakeRun(DIGITS, number=2, status="failed", stop_epoch=2, message="stopped").write(tmp_path)
    tables = grids(build(read_logs([tmp_path]), ROOT / "recipes"))
    assert len(spoken_words()) > 20
    fixed = spoken_words() | {v.value for v in Verdict} | set(plots.TITLES.values())
    fixed |= set(plots._WORDS) | {words.RULE}
    for grid in tables:
        fixed |= {grid.title, grid.empty, *(column.title for column in grid.columns)}
    assert fixed - set(words.ZH) == set()
    assert all(re.search(r"[\u4e00-\u9fff]", said) for said in set(words.ZH.values()) - {"zh-CN"})


def test_chinese_is_for_readers_and_csv_for_programs(tmp_path):
    quickstart(tmp_path)
    english, _ = made(tmp_path)
    csv = {path.name: path.read_text() for path in (tmp_path / "report").glob("*.csv")}
    assert csv
    done = report(tmp_path, "--lang", "zh", draw=True)
    assert done.returncode == 0, done.stderr
    assert "\n吞吐率\n" in done.stdout and "复现" in done.stdout
    text = (tmp_path / "report" / "report.html").read_text()
    assert '<html lang="zh-CN">' in text and '<html lang="en">' in english
    heads = re.findall(r"<(?:th|h2|dt)[^>]*>([^<]+)<", text)
    assert len(heads) > 40
    assert {h for h in heads if not re.search(r"[\u4e00-\u9fff]", h)} <= {"AMP / FP32"}
    assert "## 时间标记" in (tmp_path / "report" / "report.md").read_text()
    assert csv == {path.name: path.read_text() for path in (tmp_path / "report").glob("*.csv")}


def test_figures_show_scaling_time_and_wait(tmp_path):
    imagenet(tmp_path)
    (figure,) = figures(build(read_logs([tmp_path])))
    panels = {panel.key: panel for panel in figure.panels}
    assert set(panels) == {"loss", "accuracy", "time", "lr", "throughput", "wait", "scaling"}
    assert panels["wait"].series[0].y == pytest.approx(2.0)
    (measured,) = [s for s in panels["scaling"].series if not s.ideal]
    (ideal,) = [s for s in panels["scaling"].series if s.ideal]
    assert list(measured.x) == [1, 8] and ideal.y[-1] == pytest.approx(8 * measured.y[0])
    assert {(c.value, c.x) for c in panels["scaling"].claims} == {(1600, 1), (13000, 8)}
    assert panels["time"].marks == [3600]
    assert ("mark_top1", 3600) in {(c.metric, c.x) for c in panels["time"].claims}
    top1 = [s for s in panels["accuracy"].series if not s.second]
    assert [s.y[-1] for s in top1] == pytest.approx([71.9, 71.9])


def test_labels_of_claims_stay_apart_and_inside():
    for levels in ([10.0, 12.0, 14.0], [150.0, 149.0], [0.0], [], [60.0, 1.0, 2.0, 150.0]):
        places = plots._apart(levels, 22.0, 150.0)
        order = sorted(places)
        assert all(b - a >= 22.0 - 1e-9 for a, b in itertools.pairwise(order))
        assert all(-60 <= place <= 150 for place in places)
        assert [places[i] for i in sorted(range(len(levels)), key=levels.__getitem__)] == order


def test_many_names_differ_without_colour():
    looks = [plots.look(i) for i in range(64)]
    assert len(set(looks)) == 64 and len({shape for _, shape in looks[:8]}) == 8


@pytest.mark.parametrize("number", ["NaN", "Infinity", 1e300, -1e300, 1e-320, 0.0])
def test_no_number_of_a_log_breaks_the_page(tmp_path, number):
    """Clocks, losses and window times of any value; plans with claims and marks beyond reason."""
    imagenet(tmp_path, windows_per_epoch=1)
    for file in tmp_path.glob("*/*/events.jsonl"):
        lines = []
        for line in file.read_text().splitlines():
            event = json.loads(line)
            for name in ("mark_s", "loss", "lr", "window_s", "data_wait_s", "top1"):
                if name in event:
                    event[name] = number
            lines.append(json.dumps(event))
        file.write_text("\n".join(lines) + "\n")
    for file in tmp_path.glob("*/*/recipe.yaml"):
        plain = re.sub(
            r"value: (71.86|13000|58)(\.0)?$", "value: 1.0e+300", file.read_text(), flags=re.M
        )
        file.write_text(plain.replace("3600.0", "1.0e+250"))
    report_of = build(read_logs([tmp_path]))
    for figure in figures(report_of):
        for panel in figure.panels:
            assert plots.svg(panel, "x", str).startswith("<svg")
