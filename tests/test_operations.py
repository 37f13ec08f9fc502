"""A real server over a real store, as its operator sees it: on its disk, in its metrics and in its log."""

import json
import re

import pytest
from process import MIB, Fresh, content, until

pytest_plugins = ["weed", "process"]


@pytest.fixture(scope="module")
def observed(bucket, tmp_path_factory):
    """A server that has stored 11 MiB, with a log for machines."""
    fresh = Fresh(bucket, tmp_path_factory.mktemp("observed"))
    server = fresh("--log-format=json").start()
    assert server.ask("PUT", "/objects/a", body=content(11 * MIB)).status == 201
    yield server
    fresh.kill_all()


def test_what_is_written_is_for_its_user_alone(observed):
    paths = [observed.data, *observed.data.rglob("*")]
    assert any(path.name == "checkpoint.sqlite-wal" for path in paths)
    assert {str(path): oct(path.stat().st_mode & 0o077) for path in paths} == {str(path): "0o0" for path in paths}


def test_the_store_and_the_bytes_are_in_the_metrics(observed):
    def value(series: str) -> float:
        text = observed.ask_admin("/metrics").body.decode()
        return float(re.search(rf"^streamup_{re.escape(series)} (\S+)$", text, re.MULTILINE)[1])

    assert value("received_bytes_total") == value("stored_bytes_total") == 11 * MIB
    assert value('store_request_duration_seconds_count{operation="upload_part"}') >= 3
    assert value('store_request_duration_seconds_sum{operation="upload_part"}') > 0
    assert value('uploads_ended_total{outcome="complete"}') == 1
    until(lambda: value("event_loop_lag_seconds_count") > 0)


def test_the_audit_trail_is_lines_of_json(observed):
    lines = [line for line in observed.log.splitlines() if '"streamup.audit"' in line]
    created, complete = map(json.loads, lines)
    assert (created["message"], complete["message"]) == ("created", "complete")
    assert complete["size"] == 11 * MIB
    assert created["upload"] == complete["upload"]
