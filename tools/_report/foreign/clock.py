"""Time stamps as loggers write them, and a clock that runs over midnight and never back."""

from __future__ import annotations

import re
from datetime import UTC, datetime

DAY = 86400.0
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


def stamp(text: str) -> tuple[float, bool] | None:
    """(seconds, whether the day is known) of the time stamp at the head of a line, or None.

    With a full date, seconds since 1970 as if in UTC; with month and day, since an unknown new
    year; with the time alone, since midnight. Differences are what counts.
    """
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
    if not month:
        return seconds, False
    try:
        date = datetime(int(part["y"] or 2000), int(month), int(day), tzinfo=UTC)
    except ValueError:
        return None
    return date.timestamp() + seconds, True


def _leads(text: str, at: int) -> bool:
    """Whether nothing but punctuation and logger's words in front: no `eta:`, `time:` or `in`."""
    before = text[:at].strip(" \t[(<|-")
    if not re.fullmatch(r"[\w.]{0,20}[\])>:|\s-]*", before):
        return False
    return not re.search(r"(?i)eta|time|elapsed|remain|left|took|cost|\bin\b", before)


class Elapsed:
    """Seconds since the first stamp. A step back adds nothing; `steps_back` counts them."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.seconds: float | None = None
        self.steps_back = 0
        self._pause = False
        self._before: float | None = None

    def pause(self, stamped: bool = False) -> None:
        """Nothing was running until the next stamp, or until the last one: that does not count."""
        if stamped and self._before is not None:
            self.seconds = self._before
        self._pause = not stamped

    def at(self, seconds: float, dated: bool) -> float:
        """The elapsed seconds at a stamp."""
        self._before = self.seconds
        if self._last is None or self.seconds is None:
            self.seconds = 0.0
        elif not self._pause:
            step = seconds - self._last
            if not dated and step < -DAY / 2:
                step += DAY  # midnight
            if step < -60:
                self.steps_back += 1
            elif step < 0:
                return self.seconds  # lines of several processes out of order
            self.seconds += max(0.0, step)
        self._pause = False
        self._last = seconds
        return self.seconds
