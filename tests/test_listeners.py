"""listeners.py: what every connection is held to before there is a request."""

import os
import subprocess
import sys

import pytest

from streamup import listeners
from streamup.errors import ConfigError


def test_the_pure_python_parser_is_refused():
    asked = "from streamup.listeners import require_c_parser; require_c_parser()"
    environ = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    ended = subprocess.run([sys.executable, "-c", asked], env=environ, capture_output=True, text=True, check=False)
    assert "ConfigError: aiohttp runs without its C parser. Unset AIOHTTP_NO_EXTENSIONS" in ended.stderr


async def test_no_server_starts_on_it(start_service, monkeypatch):
    monkeypatch.setattr(listeners.http_parser, "HttpRequestParser", listeners.http_parser.HttpRequestParserPy)
    with pytest.raises(ConfigError, match="C parser"):
        await start_service()
