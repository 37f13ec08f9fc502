"""A file system whose power can be cut: an ext4 in an image on a loop device.

    with LoopDisk.mounted(directory) as disk:
        ...                                  # a program writes to disk.place
        freeze(pid)                          # not one of its threads is in a system call any more
        image = disk.copy()                  # what a disk would hold if the power failed now
        ...                                  # the program is killed
        disk.replace(image)                  # and the machine is switched on again

The file system's journal commits only when somebody asks for it (`commit=600`), and what is written back by itself
is half a minute old at least: an image holds what was synced, and little else. That is the worst that ext4 may do; what
it may do besides, because a kernel may write anything back at any time, is done by `sync_file`, `sync_range` and
`sync_all`. What a disk's own cache loses, or a sync that the power cuts short, is not shown here: a sync is in an image
as a whole, or not at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE_BYTES = 256 << 20
FREEZES_WITHIN = 20.0
"""Seconds. What a thread is in the middle of, it finishes first: a sync, say."""

SHARED_MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 << 30
"""Of memory, for two images of each of a few disks that are tested side by side."""

SEARCH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


class NoLoopDeviceError(Exception):
    """This machine gives us none; the message says why."""


@dataclass
class LoopDisk:
    """The image that is mounted at `place` now."""

    place: Path
    image: Path
    options: str
    images: int = 0

    @staticmethod
    @contextlib.contextmanager
    def mounted(directory: Path, options: str = "") -> Iterator[LoopDisk]:
        """An empty one in this directory, until the end. `options`: more of ext4's. Raises `NoLoopDeviceError`."""
        if os.geteuid() != 0:
            raise NoLoopDeviceError("mounting a loop device needs root")
        if shutil.which("mkfs.ext4", path=SEARCH) is None:
            raise NoLoopDeviceError("a loop device without a file system is no use: there is no mkfs.ext4 (e2fsprogs)")
        disk = LoopDisk(directory / "disk", directory / "image", options)
        disk.place.mkdir()
        with disk.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _do("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=8", str(disk.image))
        try:
            disk._mount()
        except subprocess.CalledProcessError as error:
            raise NoLoopDeviceError(f"this machine gives us no loop device: {error.stderr.decode().strip()}") from error
        try:
            yield disk
        finally:
            disk._unmount()
            disk.image.unlink()

    def copy(self) -> Path:
        """The image as it is. Nobody may be writing."""
        self.images += 1
        image = self.image.with_name(f"image.{self.images}")
        _do("cp", "--sparse=always", str(self.image), str(image))
        return image

    def replace(self, image: Path) -> None:
        """Mount this image in place of the one that is there. Nobody may have a file open."""
        self._unmount()
        self.image.unlink()
        self.image = image
        self._mount()

    def _mount(self) -> None:
        options = ",".join(filter(None, ("loop", "noatime", "commit=600", self.options)))
        _do("mount", "-t", "ext4", "-o", options, str(self.image), str(self.place))

    def _unmount(self) -> None:
        try:
            _do("umount", str(self.place))
        except subprocess.CalledProcessError:  # somebody still has a file open: it goes when they do
            _do("umount", "--lazy", str(self.place))
            raise


def mount_alone() -> None:
    """From now on what this process mounts is seen by it and its children only, and goes when they go, however they
    end; and they go when the one does that has started it. Raises `NoLoopDeviceError`.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _call("unshare", _CLONE_NEWNS)
        _do("mount", "--make-rprivate", "/")
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoLoopDeviceError(f"mounting a loop device needs root: {error}") from error


def fast_directory() -> Path:
    """Where images are best: in memory, if there is enough of it."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(SHARED_MEMORY).free >= ENOUGH_BYTES:
            return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def freeze(pid: int) -> None:
    """Stop a process, and return when none of its threads is on its way through the kernel any more."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + FREEZES_WITHIN
    while not all(_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.0005)  # the kernel's business: there is nothing to wait for but the state it tells


def _stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] in {"T", "Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


# -- what a kernel may do at any time ----------------------------------------------------------------------------------

_CLONE_NEWNS = 0x20000
_PR_SET_PDEATHSIG = 1
_WRITE_AND_WAIT = 1 | 2 | 4
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER."""


def sync_file(path: Path) -> None:
    """Write back one file."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())


def sync_range(path: Path, start: int, size: int) -> None:
    """Write back some pages of a file, and nothing that says that they are its."""
    with path.open("rb") as file:
        _call("sync_file_range", file.fileno(), ctypes.c_int64(start), ctypes.c_int64(size), _WRITE_AND_WAIT)


def sync_all(path: Path) -> None:
    """Write back all there is on the file system of this path."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": SEARCH})
