"""What a store, and the network before it, may do to a request: every kind of it, seldom, by seed; and storms.

    chaos = Chaos(seed=7, others={"aborts": lambda request: ...})
    proxy.rule = chaos
    with chaos.storm("slow down"): ...        # nearly all requests, for as long as that lasts
    chaos.over = True                         # from now on all goes well

The n-th request of an operation meets the same fate whenever the seed is the same. Which uploads may fail of what they
met, and with what reason, is known: `Kind.ends`.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from store_proxy import Answer, Fault, Request, no, says

ANY: frozenset[str] = frozenset()
PARTS = frozenset({"UploadPart"})
BODIES = frozenset({"UploadPart", "PutObject"})
CREATE = frozenset({"CreateMultipartUpload"})
COMPLETE = frozenset({"CompleteMultipartUpload"})
ENDS = frozenset({"CompleteMultipartUpload", "PutObject"})
LISTING = frozenset({"ListParts"})
LOOK = frozenset({"HeadObject"})

TOO_LONG = 6.0
"""Seconds: no call of the server in the campaign waits so long (`impatient` in `planted`)."""

Make = Callable[[random.Random, Request], Fault]


@dataclass(frozen=True)
class Kind:
    """`share` of the requests of these operations meet this. `ends`: an upload that has met it may fail so.

    `reorders`: what is delivered after it was given up may replace what was written in between, and a store that is
    asked without conditions cannot know. No key that is written more than once meets it. `once`: no key meets it again.
    """

    name: str
    share: float
    make: Make
    operations: frozenset[str] = ANY
    ends: str | None = None
    reorders: bool = False
    once: bool = False


def always(fault: Fault) -> Make:
    return lambda _numbers, _request: fault


def instead(answer: Answer) -> Make:
    """This answer, and nothing has happened."""
    return always(Fault(instead=answer))


def although(answer: Answer) -> Make:
    """This answer, although it has happened."""
    return always(Fault(change=lambda _: answer))


def somewhere(numbers: random.Random, request: Request) -> int:
    return numbers.randrange(max(1, request.size))


def one_letter(text: str) -> str:
    """One bit of its first letter or digit has turned."""
    at = re.search("[0-9a-zA-Z]", text)
    return text[: at.start()] + chr(ord(at[0]) ^ 1) + text[at.end() :] if at else text


def in_field(name: str) -> Make:
    """One bit of a header field of the answer turns, if there is one."""

    def change(answer: Answer) -> Answer:
        if name not in answer.fields or answer.status >= 300:
            return answer
        return replace(answer, fields={**answer.fields, name: one_letter(answer.fields[name])})

    return always(Fault(change=change))


def another_size(answer: Answer) -> Answer:
    """An object looks one byte longer."""
    if answer.status != 200:
        return answer
    return replace(answer, fields={**answer.fields, "content-length": str(int(answer.fields["content-length"]) + 1)})


def in_body(pattern: str) -> Make:
    """One bit of what the first group matches in the answer's body turns."""

    def change(answer: Answer) -> Answer:
        text = answer.body.decode()
        found = re.search(pattern, text)
        if found is None:
            return answer
        return says(answer.status, text[: found.start(1)] + one_letter(found[1]) + text[found.end(1) :])

    return always(Fault(change=change))


def without_a_part(answer: Answer) -> Answer:
    """A listing that is behind the truth."""
    return says(answer.status, re.sub("<Part>.*?</Part>", "", answer.body.decode(), count=1, flags=re.DOTALL))


SLOW_DOWN = no(503, "SlowDown")
WHITE_SPACE = says(200, " " * 40)
LOST = "the store has lost the multipart upload"

KINDS = (
    # Nothing happens, or it does and nobody hears of it.
    Kind("reset before", 0.010, always(Fault(reaches=False))),
    Kind("answer lost", 0.010, always(Fault(cut=0))),
    Kind("answer cut", 0.010, lambda numbers, _: Fault(cut=numbers.randrange(1, 150))),
    Kind("late", 0.010, lambda numbers, _: Fault(late=numbers.uniform(0, 1.5)), ENDS | PARTS, reorders=True),
    Kind("creation late", 0.050, lambda numbers, _: Fault(late=numbers.uniform(0, 1.5)), CREATE),
    Kind("twice", 0.015, lambda numbers, _: Fault(again=numbers.choice([0.0, 0.1, 1, 5])), ENDS | PARTS, reorders=True),
    # Time passes: some of it, or more than anybody waits.
    Kind("slow", 0.020, lambda numbers, _: Fault(wait=numbers.uniform(0.02, 0.4))),
    Kind("slow answer", 0.020, lambda numbers, _: Fault(after=numbers.uniform(0.02, 0.4))),
    Kind("slow body", 0.010, lambda numbers, it: Fault(rate=max(it.size, 1) / numbers.uniform(0.1, 1)), BODIES),
    Kind("stall before", 0.002, always(Fault(wait=TOO_LONG)), reorders=True),
    Kind("stall after", 0.002, always(Fault(after=TOO_LONG))),
    Kind("stall in the body", 0.003, lambda numbers, it: Fault(stall=(somewhere(numbers, it), TOO_LONG)), BODIES),
    Kind("pause in the body", 0.005, lambda numbers, it: Fault(stall=(somewhere(numbers, it), 0.5)), BODIES),
    # The store says no, truly or not.
    Kind("500", 0.008, instead(no(500, "InternalError"))),
    Kind("500 after", 0.008, although(no(500, "InternalError"))),
    Kind("503", 0.006, instead(SLOW_DOWN)),
    Kind("503 instead of 100", 0.005, always(Fault(instead=SLOW_DOWN, early=True)), BODIES),
    Kind("502 of a proxy", 0.006, although(says(502, "<html><body>Bad gateway</body></html>"))),
    Kind("request timeout", 0.006, instead(no(400, "RequestTimeout"))),
    Kind("403 rotated", 0.006, instead(no(403, "InvalidAccessKeyId"))),
    Kind("403 expired", 0.006, instead(no(403, "ExpiredToken"))),
    Kind("403 skewed", 0.006, instead(no(403, "RequestTimeTooSkewed"))),
    Kind("409", 0.020, instead(no(409, "ConditionalRequestConflict")), ENDS),
    Kind("409 after", 0.020, although(no(409, "ConditionalRequestConflict")), ENDS),
    # The answer to a completion means something else, or nothing.
    Kind("200 with an error", 0.040, instead(no(200, "InternalError")), COMPLETE),
    Kind("200 with an error after", 0.040, although(no(200, "InternalError")), COMPLETE),
    Kind("200 with white space", 0.030, instead(WHITE_SPACE), COMPLETE),
    Kind("200 with white space after", 0.030, although(WHITE_SPACE), COMPLETE),
    Kind("no such upload after", 0.040, although(no(404, "NoSuchUpload")), COMPLETE),
    Kind("invalid part after", 0.030, although(no(400, "InvalidPart")), COMPLETE),
    # Bits turn.
    Kind("torn", 0.015, lambda numbers, it: Fault(tear=somewhere(numbers, it)), BODIES),
    Kind("flipped", 0.010, lambda numbers, it: Fault(flip=somewhere(numbers, it)), BODIES),
    Kind("checksum flipped", 0.004, in_field("x-amz-checksum-crc64nvme"), BODIES),
    Kind("checksum of the whole flipped", 0.020, in_body("<ChecksumCRC64NVME>(.*?)</"), COMPLETE),
    Kind("ETag of a part flipped", 0.003, in_field("etag"), PARTS, ends="the store does not take a part"),
    Kind("ETag seen flipped", 0.004, in_field("etag"), LOOK, reorders=True),
    Kind("listing flipped", 0.030, in_body("<Size>(.*?)</"), LISTING),
    Kind("listing behind", 0.030, always(Fault(change=without_a_part)), LISTING),
    Kind("size seen flipped", 0.100, always(Fault(change=another_size)), LOOK, once=True),
    # What was begun is gone, or is said to be.
    Kind("no such upload", 0.010, instead(no(404, "NoSuchUpload")), PARTS, LOST),
    Kind("no such upload at the end", 0.020, instead(no(404, "NoSuchUpload")), COMPLETE, LOST),
    # Somebody else was there: `others` of the same name do it before the request goes on.
    Kind("aborts", 0.005, always(Fault()), PARTS, LOST),
    Kind("aborts at the end", 0.020, always(Fault()), COMPLETE, LOST),
    Kind("writes the key", 0.010, always(Fault(reaches=False)), frozenset({"PutObject"}), "conflict:|precondition:"),
)

STORMS = {
    "slow down": Fault("storm of 503", instead=SLOW_DOWN),
    "errors": Fault("storm of 500", instead=no(500, "InternalError")),
    "lost answers": Fault("storm of lost answers", cut=0),
    "resets": Fault("storm of resets", reaches=False),
    "rotated": Fault("storm of 403", instead=no(403, "InvalidAccessKeyId")),
    "skewed": Fault("storm of skew", instead=no(403, "RequestTimeTooSkewed")),
    "stalled": Fault("storm of silence", after=TOO_LONG),
}
SPARED = 0.2
"""Of the requests in a storm: so much passes as in calm."""


@dataclass
class Chaos:
    """A rule for `StoreProxy`. `met`: by path, what its requests have met."""

    seed: int
    others: Mapping[str, Callable[[Request], None]]
    """What somebody else does to the store, by the name of the kind."""

    spared: Callable[[Request], bool] = lambda _request: False
    """Requests that meet nothing which reorders or ends an upload."""

    over: bool = False
    met: dict[str, list[Kind]] = field(default_factory=lambda: defaultdict(list))
    _storm: Fault | None = None

    @contextlib.contextmanager
    def storm(self, name: str) -> Iterator[None]:
        self._storm = STORMS[name]
        try:
            yield
        finally:
            self._storm = None

    def __call__(self, request: Request) -> Fault | None:
        if self.over:
            return None
        numbers = random.Random(f"{self.seed} {request.operation} {request.number}")
        if self._storm and numbers.random() >= SPARED:
            return self._storm
        fate = numbers.random()
        spared = self.spared(request)
        for kind in KINDS:
            if kind.operations and request.operation not in kind.operations:
                continue
            fate -= kind.share
            if fate < 0:
                return None if spared and (kind.ends or kind.reorders) else self._meet(kind, numbers, request)
        return None

    def _meet(self, kind: Kind, numbers: random.Random, request: Request) -> Fault | None:
        if kind.once and kind in self.met[request.path]:
            return None
        self.met[request.path].append(kind)
        fault = kind.make(numbers, request)
        return replace(fault, name=kind.name, act=self.others.get(kind.name))
