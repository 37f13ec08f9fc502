"""hosts.py: names and addresses of machines. What `Host` may say over a socket is in test_auth.py and test_admin.py."""

import pytest

from streamup.hosts import can_mean_us, is_loopback, reachable


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("up.localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("notlocalhost", False),
    ],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "address"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1"), ("up.lan", "up.lan")],
)
def test_this_machine_reaches_what_listens_everywhere(host, address):
    assert reachable(host) == address


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        (None, (True, True, True)),
        ("Localhost.:80", (True, True, True)),
        ("[::1]", (True, True, True)),
        ("UP.example.com:443", (True, True, True)),
        ("10.0.0.1:80", (False, True, False)),
        ("[fd00::1]:80", (False, True, True)),
        ("streamup:9464", (False, False, True)),
        ("rebound.example", (False, False, False)),
        ("", (False, False, False)),
        ("a b", (False, False, False)),
        ("user@up.example.com", (False, False, False)),
        ("up.example.com/x", (False, False, False)),
    ],
)
def test_what_no_page_can_have_pointed_at_us(host, meant):
    ways = [{"addresses": False}, {"addresses": True}, {"addresses": False, "words": True}]
    assert tuple(can_mean_us(host, {"up.example.com"}, **way) for way in ways) == meant
