"""Time stamps as loggers write them, and a clock that runs over midnight and never back."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

DAY = 86400.0
ONE_CLOCK = 900.0  # seconds; clocks of two time zones differ by as much or more
HEAD = 80  # a time stamp stands within so many characters of the start of a line

_TIME = r"(?P<h>[01]?\d|2[0-3]):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:[.,](?P<f>\d{1,9}))?"
_STAMP = re.compile(
    # 2022/01/10 00:38:53
    r"(?:(?P<y>(?:19|20)\d\d)[-/.](?P<mo>0?[1-9]|1[0-2])[-/.](?P<d>[0-3]?\d)[T _]+"
    r"|(?<![\d/])(?P<mo2>0[1-9]|1[0-2])[-/](?P<d2>[0-3]\d)\s+"  # 01/10 00:38:53
    r"|(?:[A-Z][a-z]{2}\s+)?(?P<mon>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"\s+(?P<d3>[0-3]?\d)\s+"
    r"|[IWEF](?P<glog>[01]\d[0-3]\d)\s)?"
    r"(?<![\d:.])" + _TIME + r"(?!\d|:\d)(?P<rest>\s*(?:[AP]M)?)"
)
_CLOCK = re.compile(r"\d:[0-5]\d:[0-5]\d")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Stamp(NamedTuple):
    """With a full date, seconds since 1970 as if in UTC; with month and day, since an unknown new
    year; with the time alone (not `dated`), since midnight. Only stamps of one `style` compare.
    """

    seconds: float
    dated: bool
    style: str


def stamp(text: str) -> Stamp | None:
    """The time stamp at the head of a line, or None."""
    head = text[:HEAD]
    if _CLOCK.search(head) is None:  # the quick answer for most lines
        return None
    found = _STAMP.search(head)
    if found is None:
        return None
    part = found.groupdict()
    if part["y"] is None and not _leads(text, found.start()):
        return None  # an `eta: 1:02:03` is no clock
    seconds = int(part["h"]) * 3600.0 + int(part["m"]) * 60 + int(part["s"])
    seconds += float(f"0.{part['f']}") if part["f"] else 0.0
    if "PM" in part["rest"] and int(part["h"]) < 12:
        seconds += DAY / 2
    month = part["mo"] or part["mo2"] or (part["glog"] or "")[:2]
    if part["mon"]:
        month = str(_MONTHS.index(part["mon"]) + 1)
    day = part["d"] or part["d2"] or part["d3"] or (part["glog"] or "")[2:]
    style = ("Y" if part["y"] else "m" if month else "") + ("f" if part["f"] else "")
    if not month:
        return Stamp(seconds, False, style)
    try:
        date = datetime(int(part["y"] or 2000), int(month), int(day), tzinfo=UTC)
    except ValueError:
        return None
    return Stamp(date.timestamp() + seconds, True, style)


def _leads(text: str, at: int) -> bool:
    """Whether nothing but punctuation and logger's words in front: no `eta:`, `time:` or `in`."""
    before = text[:at].strip(" \t[(<|-")
    if not re.fullmatch(r"[\w.]{0,20}[\])>:|\s-]*", before):
        return False
    return not re.search(r"(?i)eta|time|elapsed|remain|left|took|cost|\bin\b", before)


class Elapsed:
    """Seconds since the first stamp. A step back adds nothing; `steps_back` counts them.

    Two loggers may write one file, each in its own style, time zone, or without the date: each has
    its own origin, set where it is first seen.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.steps_back = 0
        self._origins: dict[str, float] = {}  # by style: the stamp at which `seconds` is 0
        self._before: float | None = None
        self._newest: tuple[str, float] | None = None

    def pause(self, stamped: bool = False) -> None:
        """Nothing was running until the next stamp, or until the last one: that does not count."""
        if stamped and self._before is not None:
            self.seconds = self._before
        self._origins.clear()
        if stamped and self._newest is not None and self.seconds is not None:
            style, stamp = self._newest
            self._origins[style] = stamp - self.seconds

    def at(self, stamp: float, dated: bool, style: str = "") -> float:
        """The elapsed seconds at a stamp."""
        self._before, self._newest = self.seconds, (style, stamp)
        now = self.seconds or 0.0
        step = stamp - now - self._origin(stamp - now, dated, style)
        if not dated and step < -DAY / 2:
            days = math.ceil(-step / DAY - 0.5)  # midnights that were passed
            self._origins[style] -= days * DAY
            step += days * DAY
        if step < -60:
            self.steps_back += 1
            self._origins[style] = stamp - now
        # a smaller step back: lines of several processes out of order
        self.seconds = now + max(0.0, step)
        return self.seconds

    def _origin(self, origin: float, dated: bool, style: str) -> float:
        """That of a style; a new one's is `origin`, or that of a clock which shows the same."""
        if style not in self._origins:
            same = (known for known in self._origins.values() if -60 <= origin - known < ONE_CLOCK)
            self._origins[style] = next(same, origin) if dated else origin
        return self._origins[style]
