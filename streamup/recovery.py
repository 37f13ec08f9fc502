"""What a restart finds: part files and receipts become "received" again, or an upload fails closed.

On the boot that wrote them, a part file's length is the truth: `kill -9` loses nothing that was written (law 1). After
another boot only what was synced and committed counts: a power cut may leave a file long but empty (law 2). So it is
after another mount of the file system: a check that repairs it rounds lengths up. What was synced must have the
checksum that was committed with it, on any boot. A provisional append counts on neither: nobody has verified it.
Cutting and syncing come before the commit that records what was found, so a crash in between finds the same situation
again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from awscrt import checksums

from streamup.checkpoint import Record, SyncedFile
from streamup.errors import SpoolError
from streamup.layout import Part
from streamup.spool import PASSING, PartFile, Spool

SYS = Path("/sys")
"""Where Linux shows itself. Elsewhere there is no such directory, and nothing is found in it."""

log = logging.getLogger(__name__)


def boot_id() -> str:
    """A name for the time since the kernel started; the page cache lives exactly that long."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - constant
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def mount_of(directory: Path) -> str:
    """A name for the time since its file system was mounted, if this kernel shows one that is mounted from a disk: the
    number of the entry in /sys/fs that lives exactly that long. (The id of a mount is another one in each container.)
    """
    device = directory.stat().st_dev
    disk = (SYS / "dev/block" / f"{os.major(device)}:{os.minor(device)}").resolve().name
    return next((str(entry.stat().st_ino) for entry in (SYS / "fs").glob(f"*/{disk}")), "")


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of one upload: `received` bytes, the part files among them, and what of those is known durable."""

    received: int
    files: Sequence[PartFile]
    synced: Sequence[SyncedFile]


def part_names(spool: Spool) -> dict[str, list[str]]:
    """The names of all part files, by upload id."""
    names: dict[str, list[str]] = {}
    for name in spool.files.names(spool.directory):
        names.setdefault(name.rpartition(".")[0], []).append(name)
    return names


def survey(record: Record, spool: Spool, names: Sequence[str], *, same_boot: bool) -> Found:
    """The longest run from byte 0 that receipts and verified part files cover. For a thread: it reads files.

    `names` are the upload's part files. They are cut to what counts, those beyond the run are removed, and (after
    another boot) the rest is synced.
    """
    upload, files, synced = record.upload, [], []
    position, number = 0, 1
    end = upload.layout.capacity if upload.size is None else upload.size
    if upload.provisional is not None:
        end = upload.provisional
    while position < end:
        if receipt := upload.receipts.get(number):
            position += receipt.size
        else:
            part, known = upload.layout.part(number), record.synced.get(number)
            file = _verify(spool, upload.id, part, known, min(part.size, end - position), same_boot=same_boot)
            if file.size:
                files.append(file)
                position += file.size
                if known and file.synced:
                    synced.append(known)
            if not file.full:
                break
        number += 1
    _cut(spool, files, names, same_boot=same_boot)
    return Found(position, files, synced)


def _verify(
    spool: Spool, upload_id: str, part: Part, known: SyncedFile | None, most: int, *, same_boot: bool
) -> PartFile:
    """The part's file as far as it can be trusted, up to `most` bytes. Raises `SpoolError` if it is unreadable now."""
    file = PartFile(spool.path(upload_id, part.number), part)
    there = min(spool.files.size(file.path), most)
    if not same_boot:
        there = known.synced if known and known.synced <= there else 0
    if there == 0:
        return file  # there may be no file: a row is committed before the first byte comes
    synced = min(known.synced, there) if known else 0
    try:
        _take(spool, file, synced)
        if known and file.size == known.synced and file.crc64nvme != known.crc64nvme:
            log.warning("%s is not what was synced", file.path.name)
            return PartFile(file.path, part)
        _take(spool, file, there)
    except OSError as error:
        if error.errno in PASSING:
            raise SpoolError(f"reading {file.path.name}: {error.strerror}") from error
        # A sector that cannot be read: this upload fails closed, the others start.
        log.warning("reading %s: %s", file.path.name, error.strerror)
        return PartFile(file.path, part)
    if known and known.synced <= file.size:
        file.synced = known.synced
    return file


def _take(spool: Spool, file: PartFile, end: int) -> None:
    """Read on up to `end`: this much of the file counts."""
    for data in spool.files.read(file.path, file.size, end):
        file.size += len(data)
        file.crc64nvme = checksums.crc64nvme(data, file.crc64nvme)


def _cut(spool: Spool, files: Sequence[PartFile], names: Sequence[str], *, same_boot: bool) -> None:
    for name in set(names) - {file.path.name for file in files}:
        spool.files.unlink(spool.directory / name)
    for file in files:
        if spool.files.size(file.path) > file.size:
            spool.files.truncate(file.path, file.size)
    if not same_boot:
        spool.sync(list(files), new_names=True)
