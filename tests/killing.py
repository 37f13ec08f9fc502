"""What is checked when a server was killed and started again, and at the end of everything that was sent to it.

trial = Trial(server, bucket, {"a/key": body})     # what its client sends; None: nothing may ever be visible
...                                # the process is killed
trial.dead()                       # what its disk proves; what is visible in the store
trial.start()                      # nothing of that is lost
trial.settle(); trial.end("a/key") # exactly what was sent, once, and nothing left over
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from campaigns import Size
from invariants import Broken, Invariant
from process import MODULE, PART, Bucket, Fresh, Server, bucket_at, digest, prefix_of
from resuming import GONE
from weed import weed_in

LIVE = ("open", "sealed", "completing")
ENDS_WITHIN = 20.0
"""Seconds from the last fault to the end of every upload. Most end within one."""

PLANTED = str(Path(__file__).with_name("planted.py"))


def program(planted: str | None) -> tuple[str, ...]:
    """streamup, or one with this bug."""
    return (PLANTED, planted) if planted else MODULE


@contextlib.contextmanager
def servers(found: Fresh | None = None) -> Iterator[Fresh]:
    """Those of a test; or, for a program, of a SeaweedFS of its own."""
    if found:
        yield found
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        weed_in(Path(directory)) as weed,
        bucket_at(weed) as bucket,
    ):
        fresh = Fresh(bucket, Path(directory))
        try:
            yield fresh
        finally:
            for server in fresh.made:
                server.kill()


@contextlib.contextmanager
def replayed(what: str, campaign: str, size: Size, seed: int) -> Iterator[None]:
    """A failure in here says what broke, and the command that does it again."""
    try:
        yield
    except BaseException as error:
        release = " --release" if size is Size.RELEASE else ""
        error.add_note(f"{what}; again: python tests/campaign.py {campaign}{release} --seed {seed}")
        raise


def received_at_least(server: Server) -> dict[str, int]:
    """What a dead server had received of each upload, as its part files prove: part N is there up to its size."""
    ends: dict[str, int] = {}
    for (upload_id, number), size in server.spooled().items():
        ends[upload_id] = max(ends.get(upload_id, 0), (number - 1) * PART + size)
    return ends


@dataclass
class Trial:
    """One state directory through the deaths of its processes."""

    server: Server
    bucket: Bucket
    bodies: dict[str, bytes | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    unproven: bool = False
    """What is in part files proves nothing: nobody may have verified it yet, or it may expire soon."""

    _received: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    # -- at a kill --------------------------------------------------------------------------------------------------

    def dead(self) -> None:
        """There is no process. What has been received stays received, whatever else is killed."""
        if not self.unproven:
            for upload_id, end in received_at_least(self.server).items():
                self._received[upload_id] = max(end, self._received.get(upload_id, 0))
        self.counts["bytes in the spool then"] += sum(self.server.spooled().values())
        for key in list(self.bodies):
            self.look(key)

    def start(self) -> None:
        """As after any crash."""
        self.server.spawn()
        self.started()

    def started(self) -> None:
        """Wait until it is."""
        if not self.server.answers():
            raise Broken(Invariant.ENDS, f"it does not start again: {self.server.log[-2000:]}")
        self.hold()

    def hold(self) -> None:
        """Hold a process that was just started to what its predecessors had received."""
        for upload_id, end in list(self._received.items()):
            answer = self.server.ask("GET", f"/uploads/{upload_id}")
            upload = answer.json() if answer.status == 200 else {"state": f"unknown ({answer.status})"}
            if upload["state"] in LIVE and upload["received"] < end:
                raise Broken(Invariant.RECEIVED, f"{end} bytes of {upload['key']} were, {upload['received']} are")
            if upload["state"] not in {*LIVE, "complete", "cancelled"}:
                raise Broken(Invariant.RECEIVED, f"of an upload {end} bytes were, and it is {upload}")
            if upload["state"] not in LIVE:
                del self._received[upload_id]

    # -- at any time ------------------------------------------------------------------------------------------------

    def look(self, key: str) -> None:
        """There is no object, or the whole one; and it is never made a second time."""
        place, body = prefix_of(self.server) + key, self.bodies[key]
        found, before = self.bucket.look(place), self._seen.get(key)
        if found == before:
            return
        if before:
            raise Broken(Invariant.ONCE if found else Invariant.WHOLE, f"{key} was {before}, and is {found} now")
        if (there := digest(self.bucket.read(place))) != digest(body):
            raise Broken(Invariant.CLEAN_END, f"{key} is {there}, and what was sent {digest(body)}")
        self._seen[key] = found
        self.counts["objects compared"] += 1

    # -- at the end -------------------------------------------------------------------------------------------------

    def left(self, key: str | None = None) -> dict[Invariant, object]:
        """What has not ended yet, or is still there, of one key or of all."""
        uploads = self.server.uploads(key)
        ids = {upload["id"] for upload in uploads}
        unfinished = [upload for upload in uploads if upload["state"] in LIVE]
        files = [name for name in self.server.spooled() if key is None or name[0] in ids]
        multiparts = [found for found in self.bucket.multiparts(prefix_of(self.server)) if key in {None, found}]
        found = {Invariant.ENDS: unfinished, Invariant.NOTHING_LEFT: files + multiparts}
        return {invariant: what for invariant, what in found.items() if what}

    def settle(self, key: str | None = None, *, killed: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing of it is left, or until the server was killed. Raises `Broken`."""
        deadline, left = time.monotonic() + ENDS_WITHIN, {}
        while not killed():
            with contextlib.suppress(*GONE):
                if not (left := self.left(key)):
                    return
            if time.monotonic() > deadline:
                invariant, what = next(iter(left.items()), (Invariant.ENDS, "it does not answer"))
                broken = Broken(invariant, f"after {ENDS_WITHIN:.0f} s: {what}")
                broken.add_note("Its log ends:\n" + "\n".join(self.server.log.splitlines()[-20:]))
                raise broken
            time.sleep(0.01)  # other processes can only be asked again and again

    def killed(self) -> bool:
        """Whether it dies of what it was sent, which may come after its answer: so until it has nothing more to do."""
        self.settle(killed=self.server.killed)
        time.sleep(0.05)  # what it does last, after the store has answered, can be seen nowhere
        return self.server.process is None or self.server.killed()

    def end(self, key: str) -> None:
        """Nothing of this key is left, and its object is what was sent, made once."""
        self.settle(key)
        self.look(key)
        if self.bodies[key] is not None and key not in self._seen:
            raise Broken(Invariant.ENDS, f"{key} was sent, and is not there")
        complete = [upload for upload in self.server.uploads(key) if upload["state"] == "complete"]
        if len(complete) > 1:
            raise Broken(Invariant.ONCE, f"{key} was completed by {len(complete)} uploads")

    def forget(self, key: str) -> None:
        """It has been looked at for the last time, and need not take room."""
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=prefix_of(self.server) + key)
        self._seen.pop(key, None)
        del self.bodies[key]
