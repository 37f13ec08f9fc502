"""Which file system a directory is on, and whether it may hold the state. Pure; Linux tells it in /proc/self/mountinfo.

The laws need three things of the disk: bytes that were written outlive this process, bytes that were synced outlive the
machine, and a lock keeps a second process out. Across a network, or through somebody else's process (FUSE), none of
them is certain, and a disk that breaks them says so only when bytes are gone.
"""

from __future__ import annotations

import re
from pathlib import PurePath

NETWORK = frozenset(
    {
        *("9p", "acfs", "afs", "auristorfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2"),
        *("glusterfs", "gpfs", "lustre", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2"),
        *("smb2", "smb3", "smbfs", "vboxsf", "vmhgfs"),
    }
)
"""As the kernel calls them. Cluster file systems on a shared disk are among them: their locks cross a network, too."""

LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})
"""What rootless containers have for a root; the files themselves are the host's."""


def file_system(path: PurePath, mountinfo: str) -> str | None:
    """The type of the file system that `path` (absolute, without symlinks) is on, or would be; None if not told.

    `mountinfo` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)). Of two mounts in one place the last counts.
    """
    found: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) > 4:  # noqa: PLR2004 - the fifth is where it is mounted
            place = PurePath(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
            if path.is_relative_to(place) and (found is None or len(place.parts) >= found[0]):
                found = len(place.parts), source.partition(" ")[0]
    return found[1] if found else None


def is_remote(kind: str) -> bool:
    """Whether a file system of this type may be on another machine, or in another process."""
    user_space = kind == "fuse" or kind.startswith("fuse.")
    return kind in NETWORK or (user_space and kind not in LOCAL_FUSE)
