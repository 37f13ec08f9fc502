"""What a restart finds on the disk, on the boot that wrote it and on another one."""

import os
import sys
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme

from streamup import recovery
from streamup.checkpoint import Record, SyncedFile
from streamup.layout import Layout
from streamup.recovery import boot_id, part_names, survey
from streamup.spool import Files, Spool
from streamup.stores import ObjectMeta, Receipt
from streamup.upload import State, Upload

A, B, C = b"abcdefghij", b"klmnopqrst", b"uvwxyz"


class Recorded(Files):
    def __init__(self):
        self.synced = []

    def sync(self, path):
        super().sync(path)
        self.synced.append(path.name)

    def sync_directory(self, path):
        super().sync_directory(path)
        self.synced.append(".")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path, 1000, Recorded())


def make(spool, *, files=None, receipts=(), synced=None, layout=None, **fields):
    """A record, and the part files `files` (by number) on the disk. `synced`: what was committed of each."""
    upload = Upload("u", "key", "s", layout or Layout(10), ObjectMeta("t"), created=1.0)
    upload.receipts = {number: Receipt(number, 10, f'"{number}"', 0) for number in receipts}
    for name, value in fields.items():
        setattr(upload, name, value)
    for number, data in (files or {}).items():
        spool.path("u", number).write_bytes(data)
    known = {number: SyncedFile(number, len(data), crc64nvme(data)) for number, data in (synced or {}).items()}
    return Record(upload, known)


def look(spool, record, *, same_boot):
    return survey(record, spool, part_names(spool).get("u", []), same_boot=same_boot)


def on_disk(spool):
    return {int(path.suffix[1:]): path.read_bytes() for path in spool.directory.iterdir()}


def parts(found):
    return [(file.part.number, file.size, file.crc64nvme) for file in found.files]


# -- the boot that wrote them -------------------------------------------------------------------------------------


def test_on_the_same_boot_a_files_length_is_the_truth(spool):
    found = look(spool, make(spool, files={1: A, 2: B, 3: C}), same_boot=True)
    assert found.received == 26
    assert parts(found) == [(1, 10, crc64nvme(A)), (2, 10, crc64nvme(B)), (3, 6, crc64nvme(C))]
    assert ([], []) == (spool.files.synced, list(found.synced))


def test_what_is_known_to_be_durable_stays_known(spool):
    record = make(spool, files={1: A, 2: B}, synced={1: A, 2: B[:4]})
    found = look(spool, record, same_boot=True)
    assert (20, [10, 4]) == (found.received, [file.synced for file in found.files])
    assert list(record.synced.values()) == list(found.synced)


def test_receipts_count_and_files_go_on_after_them(spool):
    found = look(spool, make(spool, receipts=(1, 2), files={3: C}), same_boot=True)
    assert (26, [(3, 6, crc64nvme(C))]) == (found.received, parts(found))


def test_receipts_and_files_may_alternate(spool):
    found = look(spool, make(spool, receipts=(1, 3), files={2: B, 4: C}), same_boot=True)
    assert (36, [2, 4]) == (found.received, [file.part.number for file in found.files])


def test_a_file_under_a_receipt_goes(spool):
    look(spool, make(spool, receipts=(1,), files={1: A, 2: B}), same_boot=True)
    assert on_disk(spool) == {2: B}


def test_a_missing_file_ends_the_run_and_what_lies_beyond_goes(spool):
    record = make(spool, receipts=(3,), files={1: A, 4: C})
    found = look(spool, record, same_boot=True)
    record.upload.recover(found.received, 5.0)
    assert (10, {1: A}, {}) == (record.upload.received, on_disk(spool), record.upload.receipts)


def test_a_short_file_ends_the_run(spool):
    found = look(spool, make(spool, files={1: A[:7], 2: B}), same_boot=True)
    assert (7, {1: A[:7]}) == (found.received, on_disk(spool))


def test_a_file_longer_than_its_part_is_cut(spool):
    found = look(spool, make(spool, files={1: A + b"more", 2: b"klm"}), same_boot=True)
    assert (13, {1: A, 2: b"klm"}) == (found.received, on_disk(spool))


def test_a_file_shorter_than_what_was_promised_fails_the_upload(spool):
    record = make(spool, files={1: A[:3]}, synced={1: A[:5]}, offset=5)
    found = look(spool, record, same_boot=True)
    record.upload.recover(found.received, 5.0)
    assert (3, [], State.FAILED) == (found.received, list(found.synced), record.upload.state)


def test_an_empty_file_is_no_file(spool):
    found = look(spool, make(spool, files={1: A, 2: b""}), same_boot=True)
    assert (10, [1], {1: A}) == (found.received, [file.part.number for file in found.files], on_disk(spool))


def test_large_files_are_verified_in_slices(spool):
    data = bytes(range(256)) * 10_000
    record = make(spool, layout=Layout(len(data)), files={1: data}, synced={1: data[: 1 << 20]})
    found = look(spool, record, same_boot=True)
    assert parts(found) == [(1, len(data), crc64nvme(data))]
    assert list(found.synced) == [record.synced[1]]


def test_an_upload_that_fills_its_layout_is_found_whole(spool):
    layout = Layout(10, 0, 10, 2)
    found = look(spool, make(spool, layout=layout, receipts=(1,), files={2: B}), same_boot=True)
    assert found.received == layout.capacity


# -- another boot -------------------------------------------------------------------------------------------------


def test_on_another_boot_only_what_was_committed_counts(spool):
    record = make(spool, files={1: A, 2: B}, synced={1: A, 2: B[:4]}, offset=14)
    found = look(spool, record, same_boot=False)
    assert (14, {1: A, 2: B[:4]}) == (found.received, on_disk(spool))
    assert list(record.synced.values()) == list(found.synced)
    assert [10, 4] == [file.synced for file in found.files]


def test_on_another_boot_what_counts_is_synced_before_the_boot_is_recorded(spool):
    look(spool, make(spool, files={1: A, 2: B}, synced={1: A, 2: B[:4]}), same_boot=False)
    assert spool.files.synced == ["u.1", "u.2", "."]


def test_never_announced_and_gone_is_only_shorter(spool):
    record = make(spool, files={1: A, 2: B})
    found = look(spool, record, same_boot=False)
    record.upload.recover(found.received, 5.0)
    assert (0, {}, State.OPEN) == (record.upload.received, on_disk(spool), record.upload.state)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 10,  # the length came back, the bytes did not
        A[:9] + b"J",
        A[:9],
        None,
    ],
    ids=["zeros", "changed", "short", "missing"],
)
def test_announced_and_lost_fails_the_upload(spool, data):
    files = {} if data is None else {1: data}
    record = make(spool, files=files, synced={1: A}, offset=10)
    found = look(spool, record, same_boot=False)
    record.upload.recover(found.received, 5.0)
    assert (0, State.FAILED, {}) == (found.received, record.upload.state, on_disk(spool))
    assert record.upload.reason.startswith("state lost")


def test_receipts_beyond_a_lost_part_are_dropped(spool):
    record = make(spool, receipts=(1, 3), files={2: B})
    found = look(spool, record, same_boot=False)
    record.upload.recover(found.received, 5.0)
    assert (10, {1}, State.OPEN) == (found.received, set(record.upload.receipts), record.upload.state)


# -- a provisional append -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.parametrize(
    ("start", "left"),
    [(0, {}), (4, {1: A[:4]}), (10, {1: A}), (14, {1: A, 2: B[:4]}), (20, {1: A, 2: B}), (26, {1: A, 2: B, 3: C})],
)
def test_a_provisional_append_is_cut_back_to_its_start(spool, start, left, same_boot):
    record = make(spool, files={1: A, 2: B, 3: C}, synced=left, offset=start, provisional=start)
    found = look(spool, record, same_boot=same_boot)
    assert (start, left) == (found.received, on_disk(spool))
    assert parts(found) == [(number, len(data), crc64nvme(data)) for number, data in left.items()]
    assert list(record.synced.values()) == list(found.synced)
    record.upload.recover(found.received, 5.0)
    assert (State.OPEN, None) == (record.upload.state, record.upload.provisional)


def test_a_provisional_append_begins_after_receipts_too(spool):
    record = make(spool, receipts=(1,), files={2: B, 3: C}, synced={2: B[:4]}, offset=14, provisional=14)
    found = look(spool, record, same_boot=True)
    assert (14, {2: B[:4]}) == (found.received, on_disk(spool))


def test_what_was_there_before_a_provisional_append_and_is_lost_fails_the_upload(spool):
    record = make(spool, files={1: A[:3], 2: B}, synced={1: A}, offset=10, provisional=10)
    record.upload.recover(look(spool, record, same_boot=True).received, 5.0)
    assert record.upload.state is State.FAILED


# -- sealed -------------------------------------------------------------------------------------------------------


def test_a_sealed_upload_ends_at_its_size(spool):
    record = make(spool, receipts=(1,), files={2: B[:4]}, state=State.SEALED, size=14, sealed_order=1)
    found = look(spool, record, same_boot=True)
    record.upload.recover(found.received, 5.0)
    assert (14, State.SEALED) == (found.received, record.upload.state)


def test_an_empty_sealed_upload_is_whole(spool):
    record = make(spool, files={1: A}, state=State.SEALED, size=0, sealed_order=1)
    assert look(spool, record, same_boot=True).received == 0
    assert on_disk(spool) == {}


def test_sealed_but_short_and_never_answered_opens_again(spool):
    record = make(spool, files={1: A, 2: B[:4]}, synced={1: A}, state=State.SEALED, size=14, sealed_order=1)
    found = look(spool, record, same_boot=False)
    record.upload.recover(found.received, 5.0)
    assert (10, State.OPEN, None) == (record.upload.received, record.upload.state, record.upload.size)


def test_sealed_and_answered_but_short_fails(spool):
    record = make(spool, files={1: A}, synced={1: A, 2: B[:4]}, state=State.SEALED, size=14, offset=14)
    found = look(spool, record, same_boot=False)
    record.upload.recover(found.received, 5.0)
    assert record.upload.state is State.FAILED


def test_a_found_upload_that_has_reached_its_end_is_due(spool):
    record = make(spool, files={1: A, 2: B[:4]}, seal_at=14)
    found = look(spool, record, same_boot=True)
    record.upload.recover(found.received, 5.0)
    assert record.upload.due


def test_a_crash_in_a_recovery_changes_nothing_about_the_next(spool):
    record = make(spool, files={1: A, 2: B}, synced={1: A, 2: B[:4]}, offset=14)
    first, second = [look(spool, record, same_boot=False) for _ in range(2)]
    assert first == second


# -- names --------------------------------------------------------------------------------------------------------


def test_part_files_are_known_by_their_upload(spool):
    for name in ("u.1", "u.2", "other.1", "a.b.3"):
        (spool.directory / name).write_bytes(b"x")
    names = {upload_id: sorted(group) for upload_id, group in part_names(spool).items()}
    assert {"u": ["u.1", "u.2"], "other": ["other.1"], "a.b": ["a.b.3"]} == names


def test_files_of_others_are_left_alone(spool):
    (spool.directory / "other.1").write_bytes(b"x")
    look(spool, make(spool, files={1: A}), same_boot=True)
    assert {"u.1", "other.1"} == {path.name for path in spool.directory.iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_boot_has_a_name_that_stays():
    assert boot_id() == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_mount_has_the_name_of_its_entry_in_sys(tmp_path, monkeypatch):
    """One that is made when a file system is mounted, under the name of its disk."""
    monkeypatch.setattr(recovery, "SYS", tmp_path)
    assert recovery.mount_of(tmp_path) == ""
    device = tmp_path.stat().st_dev
    (tmp_path / "devices" / "sda1").mkdir(parents=True)
    (tmp_path / "dev" / "block").mkdir(parents=True)
    (tmp_path / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}").symlink_to(tmp_path / "devices" / "sda1")
    entry = tmp_path / "fs" / "ext4" / "sda1"
    entry.mkdir(parents=True)
    assert recovery.mount_of(tmp_path) == str(entry.stat().st_ino)


def test_the_boot_of_a_mac_has_a_name(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    asked = []

    def run(command, **_):
        asked.append(command)
        return type("Done", (), {"stdout": "F00-BA4\n"})()

    monkeypatch.setattr(recovery.subprocess, "run", run)
    assert boot_id() == "F00-BA4"
    assert asked == [["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]]
