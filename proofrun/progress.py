"""What a person sees of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class Progress:
    """Of a run, on rank 0: silent unless `show`; a bar over all steps, or a line a window."""

    def __init__(self, show: bool, bar: bool, columns: int) -> None:
        self._show = show
        self._wants_bar = show and bar
        self._columns = columns
        self._bar: tqdm | None = None

    def window(
        self, step: int, total: int, epoch: float, values: dict[str, float], eta_s: float
    ) -> None:
        """One window of training; `values` has loss, lr, img_s and wait (fraction)."""
        if not self._show:
            return
        minutes, seconds = divmod(round(max(eta_s, 0)), 60)
        left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        text = (
            f"epoch {epoch:.2f}  loss {values['loss']:.4f}  lr {values['lr']:.4g}  "
            f"{values['img_s']:.0f} img/s  data {100 * values['wait']:.0f}%  left {left}"
        )
        if not self._wants_bar:
            self.say(f"step {step}/{total}  {text}")
            return
        if self._bar is None:
            self._bar = tqdm(
                total=total,
                ncols=self._columns,
                file=sys.stdout,
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}  {desc}",
            )
        self._bar.n = step
        self._bar.set_description_str(text, refresh=True)

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self._show:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


#: Work that ends within so many seconds is not reported; without a terminal, a line each so often.
_QUIET_S = 10.0


def counted(items: Iterable[T], total: int, what: str, each: int = 1) -> Iterator[T]:
    """The items, while stderr shows how many of `total` are done and the time left.

    An item stands for `each` of them, the last for what remains.
    """
    start = said = time.monotonic()
    if sys.stderr.isatty():
        with tqdm(desc=what, total=total, file=sys.stderr, delay=1, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(min(each, total - bar.n))
        return
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= _QUIET_S:
            said, done = now, min(number * each, total)
            left = round((now - start) / done * (total - done))
            line = f"{what}: {done} of {total}, left {left // 60}:{left % 60:02d}"
            print(line, file=sys.stderr, flush=True)
