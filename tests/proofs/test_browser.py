"""The report page in a real browser: sorting, links, policy, both schemes, a phone, paper."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_logs import imagenet

from .chromium import Tab, chromium
from .helpers import ROOT, shell

DESK, PHONE = (1280, 900), (390, 844)

# Texts of a column's cells in the order of the rows; continued rows come as [first row, …].
_COLUMN = """
(([table, column]) => {
  const groups = [];
  for (const row of document.querySelector(`#${table} tbody`).rows) {
    if (row.className === "continued") groups.at(-1).push(row.innerText);
    else groups.push([row.cells[column].querySelector("span").innerText, row.cells[0].innerText]);
  }
  return groups;
})
"""
# Texts whose contrast with what lies behind them is under 4.5 : 1.
_PALE = """
(() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const ink = parts(node.ownerSVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.add(`${node.outerHTML.slice(0, 120)}: ${contrast.toFixed(2)}`);
  }
  return [...found];
})()
"""
# What sticks out of the window, and texts of a drawing that meet each other or leave it.
_OUTSIDE = """
[...document.querySelectorAll("main *")].filter((node) => {
  const box = node.getBoundingClientRect();
  return box.width && !node.closest(".scroll, thead, svg") && box.right > innerWidth + 0.5;
}).map((node) => node.outerHTML.slice(0, 120))
"""
_CROWDED = """
[...document.querySelectorAll("svg")].flatMap((svg) => {
  const all = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll("text")].map((text) => [
    text.textContent, text.getBoundingClientRect()]);
  const bad = boxes.filter(([, b]) => b.left < all.left - 1 || b.right > all.right + 1
    || b.top < all.top - 1 || b.bottom > all.bottom + 1).map(([t]) => `${t} leaves its drawing`);
  boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) bad.push(`${t} meets ${u}`);
  }));
  return bad;
})
"""


@pytest.fixture(scope="module")
def tab(work) -> Iterator[Tab]:
    with chromium(work) as found:
        yield found


@pytest.fixture(scope="module", params=["rehearsal", "rehearsal-epyc", "imagenet", "chinese"])
def report(request, work) -> Path:
    """The pages of the committed runs; of the published ones as if true; the same in Chinese."""
    logs, out = work / "imagenet.logs", work / request.param
    if request.param.startswith("rehearsal"):
        logs = ROOT / "reports" / request.param / "logs"
    elif not logs.exists():
        imagenet(logs)
    language = "zh" if request.param == "chinese" else "en"
    shell([sys.executable, ROOT / "tools/report.py", logs, "--out", out, "--lang", language])
    return out / "report.html"


def numbers(groups: list[list[str]]) -> list[float | None]:
    found = [re.search(r"-?\d+(\.\d+)?", group[0].replace(",", "")) for group in groups]
    return [float(match[0]) if match else None for match in found]


def test_nothing_is_loaded_and_nothing_complains(tab, report, evidence):
    tab.screen(*DESK)
    tab.open(report)
    assert tab.complaints() == []
    language = "zh-CN" if report.parent.name == "chinese" else "en"
    assert tab.js("document.documentElement.lang") == language
    if report.parent.name == "rehearsal":
        evidence.figure("page of 30 runs, bytes", f"{report.stat().st_size:,}", "1,000,000")
        assert report.stat().st_size < 1_000_000


def test_the_policy_stops_a_script_that_is_not_the_pages_own(tab, report):
    """So that silence means something: what a log could smuggle in is stopped and reported."""
    tab.open(report)
    tab.js(
        "{const s = document.createElement('script'); s.text = 'window.evil = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x';"
        "document.body.append(i); 0}"
    )
    assert tab.js("window.evil") is None
    found = " ".join(tab.complaints())
    assert "script-src" in found and "img-src" in found
    failed = [params for method, params in tab.events if method == "Network.loadingFailed"]
    assert [params["blockedReason"] for params in failed] == ["csp"]


def test_tables_sort_by_what_they_show(tab, report, evidence):
    tab.screen(*DESK)
    tab.open(report)
    tables = tab.js(
        "[...document.querySelectorAll('section[id] table')].map(t => t.closest('section').id)"
    )
    clicks = 0
    for table in tables:
        heads = f"document.querySelectorAll('#{table} th')"
        for column in range(tab.js(f"{heads}.length")):
            read = f"{_COLUMN}({[table, column]})"
            given = tab.js(read)
            if len(given) < 2:
                continue
            order = {}
            for state in ("ascending", "descending", "none"):
                tab.js(f"{heads}[{column}].querySelector('button').click()")
                assert tab.js(f"{heads}[{column}].ariaSort") == state
                order[state] = tab.js(read)
                assert sorted(order[state]) == sorted(given)  # continued rows stay with their own
                clicks += 1
            assert order["none"] == given
            if tab.js(f"{heads}[{column}].className") == "num":
                up, down = numbers(order["ascending"]), numbers(order["descending"])
                known = [n for n in up if n is not None]
                none = [None] * (len(up) - len(known))
                assert up == sorted(known) + none
                assert down == sorted(known, reverse=True) + none
    assert clicks >= 30
    evidence.figure(f"clicks on headers, {report.parent.name}: rows as expected", str(clicks))


def test_a_keyboard_sorts_too(tab, report):
    tab.screen(*DESK)
    tab.open(report)
    tab.press("Tab", 9)
    tab.js("document.querySelector('#accuracy th.num button').focus()")
    assert tab.js("document.activeElement.matches(':focus-visible')")
    tab.press("Enter", 13, "\r")
    assert tab.js("document.querySelector('#accuracy th.num').ariaSort") == "ascending"


def test_every_link_leads_somewhere_and_back(tab, report, evidence):
    tab.screen(*DESK)
    tab.open(report)
    inside = tab.js("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))")
    ids = tab.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) and set(inside) <= set(ids)
    bare = tab.js(
        "[...document.querySelectorAll('#accuracy td.num a, #mark td.num a')].every(a =>"
        "document.querySelector(a.hash).querySelector(`a[href='#${a.id}']`))"
    )
    assert bare
    tab.js("document.querySelector('#accuracy td a.cite').click()")
    tab.js("window.target = document.querySelector(':target')")
    assert tab.js("(b => b.top >= 0 && b.top < innerHeight)(target.getBoundingClientRect())")
    assert tab.js("target.querySelector('code').innerText.includes('\"kind\":\"eval\"')")
    evidence.figure(f"links inside the page, {report.parent.name}", str(len(inside)))


def test_cards_open_to_their_reasoning(tab, report):
    tab.open(report)
    closed = tab.js("document.querySelector('.card').offsetHeight")
    tab.js("document.querySelector('.card summary').click()")
    assert tab.js("document.querySelector('.card').offsetHeight") > closed + 20
    assert tab.js("document.querySelector('.card details[open] > p').innerText.length") > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(tab, report, work, scheme):
    tab.screen(*DESK, scheme=scheme)
    tab.open(report)
    tab.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.js(_PALE) == []
    assert tab.js(_CROWDED) == []
    assert tab.js(_OUTSIDE) == []
    tab.picture(work / f"{report.parent.name}-{scheme}.png")


@pytest.mark.parametrize("width", [768, 1100, 1200, 1366])
def test_a_table_is_seen_whole(tab, report, width):
    tab.screen(width, 900)
    tab.open(report)
    beyond = "[...document.querySelectorAll('.scroll')].map(s => s.scrollWidth - s.clientWidth)"
    found = tab.js(beyond)
    assert found and not any(found)


def test_a_phone_shows_all_without_scrolling_sideways(tab, report, work):
    tab.screen(*PHONE, phone=True)
    tab.open(report)
    tab.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.js("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    assert tab.js(_OUTSIDE) == []
    read = f"{_COLUMN}({['mark', 1]})"
    given = tab.js(read)
    pick = (
        "(s => {{ s.value = '{}'; s.dispatchEvent(new Event('change')) }})"
        "(document.querySelector('#mark select'))"
    )
    tab.js(pick.format("0 -1"))
    names = [group[1] for group in tab.js(read)]
    assert names == sorted(names, reverse=True)
    tab.js(pick.format("0 0"))
    assert tab.js(read) == given
    tab.picture(work / f"{report.parent.name}-phone.png")


def test_paper(tab, report, work, evidence):
    tab.screen(*DESK)
    tab.open(report)
    text = tab.paper(work / f"{report.parent.name}.pdf")
    pages = len(re.findall(rb"/Type /Page\b", text))
    assert text.startswith(b"%PDF") and pages > 1
    evidence.figure(f"pages of A4, {report.parent.name}", str(pages))
    # the width of A4 without its margins
    tab.screen(703, 1000)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.open(report)
    wide = "[...document.querySelectorAll('table')].map(t => t.offsetWidth).filter(w => w > 703)"
    assert tab.js(wide) == []
    assert tab.js(
        "[...document.querySelectorAll('details > :not(summary)')].every(e => e.offsetHeight)"
    )
    tab.call("Emulation.setEmulatedMedia", media="")
