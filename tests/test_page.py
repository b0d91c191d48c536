"""The report page: its links to log lines, its script and policy, and bounded reading."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import sys
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_logs import FakeRun, imagenet
from test_report import DIGITS, report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from _report.evidence import Source, lines_at, read_lines, relative_link  # noqa: E402


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
    done = report(logs, *flags)
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
