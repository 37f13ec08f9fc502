"""mounts.py: what file system a directory is on, and which are refused."""

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from streamup.mounts import file_system, is_remote

MOUNTINFO = r"""
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
25 22 0:23 / /proc rw,nosuid - proc proc rw
40 22 0:44 / /mnt/share rw,relatime shared:5 master:2 - nfs4 server:/export rw,vers=4.2
41 40 259:3 / /mnt/share/fast rw - xfs /dev/nvme1n1 rw
42 22 0:46 / /mnt/my\040disk\134\011x rw - fuse.sshfs me@there: rw
43 22 0:47 / /srv rw - ext4 /dev/sda1 rw
44 22 0:48 / /srv rw - cifs //server/share rw
45 22 0:49 / /mnt/share/fast2 rw - 9p host rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/me/streamup-data", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/not/there/yet", "nfs4"),
        ("/mnt/sharedata", "ext4"),
        ("/mnt/share/fast/data", "xfs"),
        ("/mnt/share/fast2", "9p"),
        ("/mnt/my disk\\\tx/data", "fuse.sshfs"),
        ("/srv/data", "cifs"),
    ],
)
def test_the_innermost_and_latest_mount_counts(path, kind):
    assert file_system(PurePosixPath(path), MOUNTINFO) == kind


def test_where_nothing_is_told_nothing_is_known():
    assert file_system(PurePosixPath("/data"), "") is None


def test_it_agrees_with_the_kernel_about_this_machine(tmp_path):
    mountinfo = Path("/proc/self/mountinfo").read_text()
    for path in (tmp_path, Path("/"), Path("/proc"), Path("/sys"), Path("/dev/shm")):
        told = subprocess.run(["findmnt", "-nvo", "FSTYPE", "-T", path], capture_output=True, text=True, check=True)
        assert file_system(path.resolve(), mountinfo) == told.stdout.split()[0], path


REMOTE = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre"]
THROUGH_A_PROCESS = ["fuse", "fuse.s3fs", "fuse.sshfs", "fuse.rclone", "fuse.ceph", "fuse.glusterfs"]
OURS = ["ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "fuseblk", "virtiofs", "fuse.fuse-overlayfs"]


@pytest.mark.parametrize("kind", REMOTE + THROUGH_A_PROCESS)
def test_what_is_refused(kind):
    assert is_remote(kind)


@pytest.mark.parametrize("kind", OURS)
def test_what_is_taken(kind):
    assert not is_remote(kind)
