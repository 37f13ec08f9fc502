"""What one subject may do at once and how often, so that it leaves something for others (law 8). Pure.

What is remembered of a subject goes away by itself: while it has no request here, and has not been faster than its
pace in the last seconds, nothing of it is known. So no number of subjects makes anything grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from streamup.errors import RequestShareTaken, TooManyAppends, TooManyStreams

BURST_SECONDS = 2.0
"""What comes together may come at once, as much as two seconds' worth: a page with many small files, a playlist."""

DELAY_SECONDS = 0.5
"""Who is faster still waits so long, which slows down whoever sends one after another; more is refused."""

HURRIED_DELAY_SECONDS = 0.1
"""... but who waits for `100 Continue` does not wait for long: of the second in `server.CONTINUE_SECONDS`."""


@contextmanager
def _counted(now: Counter[str], subject: str) -> Iterator[None]:
    """One more of this subject's, for as long as it lasts."""
    now[subject] += 1
    try:
        yield
    finally:
        now[subject] -= 1
        if not now[subject]:
            del now[subject]


class Requests:
    """How many requests of each subject are being answered. At most `most` (None: any number)."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._now = Counter[str]()

    def __repr__(self) -> str:
        return f"<Requests {self._now.total()} of {len(self._now)} subjects>"

    @contextmanager
    def one_more(self, subject: str) -> Iterator[None]:
        """Raises `RequestShareTaken`."""
        if self._most is not None and self._now[subject] >= self._most:
            raise RequestShareTaken(
                f"{self._most} of your requests are being answered, and no more may be. Wait for one of them to end.",
                limit=self._most,
            )
        with _counted(self._now, subject):
            yield


class Streams:
    """How many event streams are open, which may last for days: at most `total`, and `most` of one subject (None: all
    of those).
    """

    def __init__(self, total: int, most: int | None) -> None:
        self._total = total
        self._most = total if most is None else most
        self._now = Counter[str]()

    def __repr__(self) -> str:
        return f"<Streams {self._now.total()}/{self._total} of {len(self._now)} subjects>"

    @contextmanager
    def one_more(self, subject: str) -> Iterator[None]:
        """Raises `TooManyStreams`."""
        for count, limit, whose in (
            (self._now[subject], self._most, "of yours "),
            (self._now.total(), self._total, ""),
        ):
            if count >= limit:
                raise TooManyStreams(
                    f"{limit} event streams {whose}are open, and no more may be. Close one, or ask with GET instead.",
                    limit=limit,
                )
        with _counted(self._now, subject):
            yield


class Pace:
    """How often each subject may append: `a_second` in the long run (None: as often as it likes).

    Of a subject one time is kept (a leaky bucket, as GCRA keeps it): when its next append would be due at that pace.
    """

    def __init__(self, a_second: int | None) -> None:
        self._a_second = a_second
        self._due: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Pace {self._a_second} a second, {len(self._due)} subjects>"

    def delay(self, subject: str, now: float, *, hurried: bool = False) -> float:
        """One append more: after how many seconds it may begin. Raises `TooManyAppends`, and then it does not count."""
        if self._a_second is None:
            return 0.0
        self._forget(now)
        due = max(now, self._due.get(subject, now))
        delay = max(0.0, due - now - BURST_SECONDS)
        if delay > (HURRIED_DELAY_SECONDS if hurried else DELAY_SECONDS):
            raise TooManyAppends(
                f"{self._a_second} bodies a second are taken from one client. Send fewer and larger ones, or less at "
                "once.",
                limit=self._a_second,
            )
        self._due.pop(subject, None)  # so that the first one is who came longest ago
        self._due[subject] = due + 1 / self._a_second
        return delay

    def _forget(self, now: float) -> None:
        """Those at the front who have waited their pace out: as if they had never been here."""
        while self._due and self._due[first := next(iter(self._due))] <= now:
            del self._due[first]
