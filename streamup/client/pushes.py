"""Several files to one server: some at a time, and each with an outcome of its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from streamup.client.destination import Destination
from streamup.client.progress import Display, Lines, Progress
from streamup.client.push import Push, Pushed
from streamup.client.reading import in_parallel
from streamup.client.remote import Client, ClientError
from streamup.client.unfinished import Notes
from streamup.errors import Interrupted, TransferError


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """How it ended with one file: `pushed`, or an `error`; `again`: the same command may go on."""

    path: str
    destination: Destination
    pushed: Pushed | None = None
    error: str = ""
    again: bool = False


class Pushes:
    """Files to one server, some at a time. `report` is told of each as it ends; `about` are options of `Push`.

    What is remembered of those that are done is forgotten when all are: until then the same files may be pushed again,
    for the others' sake, and nothing of these is to be sent twice.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, Destination]],
        token: str | Callable[[], str] | None,
        notes: Notes,
        show: Lines,
        report: Callable[[FileOutcome], None],
        *,
        parallel: int,
        afresh: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._pairs = pairs
        self._token = token
        self._notes = notes
        self._show = show
        self._report = report
        self._parallel = parallel
        self._options = {"afresh": afresh, "one_of_several": len(pairs) > 1, **(about or {})}
        self._begun: list[Push] = []
        self._done = 0
        self._hopeless = False

    async def run(self) -> int:
        """Until each has ended. How many were not begun, because what one met holds for all."""
        destination = self._pairs[0][1]
        several = len(self._pairs) > 1
        total = sum(map(_size, (path for path, _ in self._pairs)))
        whole = Progress(f"0 of {len(self._pairs)} files", total, "sending") if several else None
        if whole:
            whole.follow("sending", lambda: (sum(push.position for push in self._begun), total))
        waiting, ended = deque(self._pairs), 0
        async with Client(destination.server, self._token) as client, Display(self._show, whole) as display:

            async def work() -> None:
                nonlocal ended
                while waiting and not self._hopeless:
                    self._report(await self._push(client, display, whole, *waiting.popleft()))
                    if whole:
                        ended += 1
                        whole.name = f"{ended} of {len(self._pairs)} files"

            await in_parallel(min(self._parallel, len(self._pairs)), work)
        if self._done == len(self._pairs) > 1:
            for path, destination in self._pairs:
                self._notes.forget(path, destination)
        return len(waiting)

    async def _push(
        self, client: Client, display: Display, whole: Progress | None, path: str, destination: Destination
    ) -> FileOutcome:
        met = any(push.reached for push in self._begun)
        push = Push(client, self._notes, path, destination, met=met, say=self._show.say, **self._options)
        self._begun.append(push)
        progress = display.begin(PurePath(path).name, _size(path), "beginning")
        try:
            pushed = await push.run(progress, whole.skip if whole else lambda _: None)
        except ClientError as error:
            denied = error.status == 401  # noqa: PLR2004 - Unauthorized
            self._hopeless = self._hopeless or denied or (error.again and not (met or error.status))
            # A credential that was good a moment ago has expired: with another one the same command goes on.
            return FileOutcome(path, destination, error=str(error), again=error.again or (denied and push.reached))
        except Interrupted as error:
            return FileOutcome(path, destination, error=str(error), again=True)
        except TransferError as error:
            return FileOutcome(path, destination, error=str(error))
        finally:
            display.end(progress)
        self._done += 1
        return FileOutcome(path, destination, pushed)


def _size(path: str) -> int:
    """For the total; what cannot be read says so later."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as it is opened
    except OSError:
        return 0
