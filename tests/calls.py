"""A server whose system calls are counted, all threads in one order, and that can be killed at any of them.

    watch = Watch(server)                     # from its next start on
    watch.start(Call("fdatasync", 3))         # killed when it is about to make its third, counted from main()
    watch.arm(Call("write", 40))              # ... or counted from now
    watch.made                                # how many of each there were since

The kernel asks us before each of these calls (seccomp's user notification) and waits for the answer: the call at which
the process is killed is not made, and the one before it was. `strace --inject` counts in each thread by itself, so what
a second thread does is reached only where the first has done less of it; here every call has its number. It needs
neither ptrace nor a program, takes 20 ms of CPU for a start and an upload, and Linux 5.8.

Calls that only look (stat, pread64, lseek, ...) are not asked about: a kill before one leaves what a kill before the
next other call leaves. (PYTEST_DONT_REWRITE: the watched side is a program.)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections import Counter
from dataclasses import dataclass

X86_64 = (
    "read 0 write 1 open 2 close 3 pwrite64 18 readv 19 writev 20 sendfile 40 socket 41 connect 42 accept 43 sendto 44 "
    "recvfrom 45 sendmsg 46 recvmsg 47 shutdown 48 bind 49 listen 50 fsync 74 fdatasync 75 truncate 76 ftruncate 77 "
    "rename 82 mkdir 83 unlink 87 epoll_wait 232 openat 257 unlinkat 263 epoll_pwait 281 fallocate 285 accept4 288 "
    "pwritev 296 renameat2 316"
)
AARCH64 = (
    "epoll_pwait 22 mkdirat 34 unlinkat 35 truncate 45 ftruncate 46 fallocate 47 openat 56 close 57 read 63 write 64 "
    "readv 65 writev 66 pwrite64 68 pwritev 70 sendfile 71 fsync 82 fdatasync 83 socket 198 bind 200 listen 201 "
    "accept 202 connect 203 sendto 206 recvfrom 207 shutdown 210 sendmsg 211 recvmsg 212 accept4 242 renameat2 276"
)
"""The calls on files and sockets that change something, or take something from whoever is on the line."""

CALLS = {"x86_64": X86_64, "aarch64": AARCH64}.get(platform.machine(), "").split()
NAMES = {int(number): name for name, number in zip(CALLS[::2], CALLS[1::2], strict=True)}

# From linux/seccomp.h, linux/filter.h and linux/prctl.h.
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_MODE_FILTER, NEW_LISTENER, NO_NEW_PRIVS = 1, 8, 38
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ASK = 0x7FFF0000, 0x7FC00000
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
NOTIFICATION_BYTES = 80
GO_ON = 1

HANDED_OVER_WITHIN = 30.0


@dataclass(frozen=True)
class Call:
    """The `nth` call of a name."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name}:{self.nth}"


class NotHereError(Exception):
    """This machine does not let processes be watched."""


@functools.cache
def why_not() -> str | None:
    """Why this machine's processes cannot be watched like that; None if they can."""
    if not NAMES:
        return f"the numbers of system calls on this machine ({platform.machine()}) are not in tests/calls.py"
    tried = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return None
    error = tried.stderr.strip().rpartition("\n")[2]
    return f"this machine allows no seccomp notifications ({error}); Docker does with --security-opt seccomp=unconfined"


class Watch:
    """Whatever one server does, start after start."""

    def __init__(self, server) -> None:
        self.server = server
        self.made = Counter[str]()
        self._at: Call | None = None
        self._address = f"streamup-calls-{uuid.uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"\0{self._address}")
        self._listener.listen()
        self._listener.settimeout(HANDED_OVER_WITHIN)
        server.program = (__file__, self._address, *server.program)

    def close(self) -> None:
        self._listener.close()

    def arm(self, at: Call | None) -> None:
        """Count from now on, and kill the process when it is about to make this call."""
        self._at = None
        self.made = Counter()
        self._at = at

    def spawn(self, at: Call | None = None) -> None:
        """Start the server, without waiting for more than that it is watched."""
        if reason := why_not():
            raise NotHereError(reason)
        self.server.spawn()
        connection, _ = self._listener.accept()
        with connection:
            pid, (descriptor,), _, _ = socket.recv_fds(connection, 100, 1)
            self.arm(at)
            threading.Thread(
                target=self._watch, args=(descriptor, int(pid)), name=f"calls of {int(pid)}", daemon=True
            ).start()
            connection.sendall(b"go")

    def _watch(self, descriptor: int, pid: int) -> None:
        """Answer for one process until it is gone."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        try:
            while poll.poll()[0][1] & select.POLLIN:
                asked = bytearray(NOTIFICATION_BYTES)
                try:
                    fcntl.ioctl(descriptor, RECEIVE, asked)
                    number, _, _, call = struct.unpack_from("QIIi", asked)
                    name = NAMES[call]
                    self.made[name] += 1
                    if self._at == Call(name, self.made[name]):
                        self._at = None
                        os.kill(pid, signal.SIGKILL)
                        continue
                    fcntl.ioctl(descriptor, ANSWER, bytearray(struct.pack("QqiI", number, 0, 0, GO_ON)))
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.EINTR}:  # it was killed while it asked
                        raise
        finally:
            os.close(descriptor)


# -- the watched side ------------------------------------------------------------------------------------------------


def _ask_about(numbers: list[int]) -> int:
    """From now on this thread, and those that it starts, ask before these calls. The descriptor to be asked on."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [struct.pack("HBBI", LOAD_NUMBER, 0, 0, 0)]
    for position, number in enumerate(numbers):
        steps.append(struct.pack("HBBI", JUMP_IF_EQUAL, len(numbers) - position, 0, number))
    steps += [struct.pack("HBBI", RETURN, 0, 0, verdict) for verdict in (ALLOW, ASK)]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        descriptor = libc.syscall(SYS_SECCOMP[platform.machine()], SET_MODE_FILTER, NEW_LISTENER, program)
        if descriptor >= 0:
            return descriptor
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _hand_over(address: str, descriptors: list[int], there: threading.Event) -> None:
    """By a thread that is older than the filter, and so asks nobody."""
    there.wait()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{address}")
        socket.send_fds(connection, [b"%d" % os.getpid()], descriptors)
        connection.recv(2)
    os.close(descriptors[0])


def main() -> int:
    """`calls.py ADDRESS PROGRAM...`: run a program that is watched. Without arguments: find out whether it could be."""
    if len(sys.argv) == 1:
        os.close(_ask_about(sorted(NAMES)[-1:]))
        return 0
    from zygote import run  # noqa: PLC0415

    import streamup.cli  # noqa: PLC0415 - nothing has happened while modules are read
    import streamup.service  # noqa: F401, PLC0415

    descriptors, there = list[int](), threading.Event()
    older = threading.Thread(target=_hand_over, args=(sys.argv[1], descriptors, there))
    older.start()
    descriptors.append(_ask_about(sorted(NAMES)))
    there.set()
    older.join()
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
