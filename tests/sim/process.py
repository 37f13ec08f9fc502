"""One streamup in the world: all of it real, over a loop, a disk, a database and a bucket of ours."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fake_store import FakeObject

from sim.database import Database
from sim.disk import Disk
from sim.loop import OneThread, VirtualLoop
from sim.store import SimStore
from streamup.checkpoint import Checkpoint
from streamup.spool import Spool
from streamup.uploader import Uploader
from streamup.uploads import Uploads

if TYPE_CHECKING:
    from sim.world import World

DIRECTORY = Path("/spool")


class Left(NamedTuple):
    """What a process has left."""

    disk: Disk
    database: Database
    store: SimStore


class Process:
    """One streamup, from its start to its end, in what an earlier one has left."""

    def __init__(self, world: World, left: Left, now: float) -> None:
        self.world = world
        self.disk, self.database, self.store = left
        self.dead = False
        self.loop = VirtualLoop(world.choices, now)
        self.loop.slow_seconds = world.slow_seconds
        self.store.watcher = self
        self.store.bytes_of = self.disk.bytes_of
        self.checkpoint = Checkpoint(DIRECTORY, OneThread())
        self.spool = Spool(DIRECTORY, world.spool_bytes, self.disk, floor=world.floor, share=world.share)
        self.uploader = Uploader(
            self.store,
            self.checkpoint,
            self.disk,
            parallel_parts=world.config.parallel_parts,
            clock=world.clock,
            jitter=random.Random(world.choices.random()),
        )
        self.uploads = Uploads(
            world.config,
            self.uploader,
            self.checkpoint,
            self.spool,
            clock=world.clock,
            random_token=world.new_token,
            still_known=lambda name: name not in world.revoked,
        )

    async def start(self, boot_id: str) -> None:
        await self.checkpoint.open()
        await self.uploads.recover(boot_id)

    async def stop(self, grace_seconds: float) -> None:
        await self.uploads.stop(grace_seconds)
        await self.checkpoint.close()

    # -- what the bucket tells ----------------------------------------------------------------------------------------

    def passage(self, name: str) -> None:
        if not self.dead:
            self.world.passage(name)

    def stored(self, key: str, made: FakeObject, sent: bytes) -> None:
        if not self.dead:
            self.world.judge.stored(key, made, sent)

    def removed(self, key: str, before: FakeObject) -> None:
        if not self.dead:
            self.world.judge.removed(key, before)

    def not_kept(self, key: str) -> None:
        if not self.dead:
            self.world.judge.not_kept(key)
