"""What the command line does against a running server, or against a store; and a client for programs of one's own.

    from streamup.client import Client, ClientError

`remote.py` asks a server (`Client`), `sending.py` brings one upload there, over lost connections, from a `Supply` of
bytes: a stream (`live.py`, of a `pipe.py` with its `backlog.py`), or a file (`push.py`; `pushes.py` for several), which
goes on after a reboot, too (`unfinished.py`). `transfer.py` is for the way back. `table.py` shows the answers,
`progress.py` how far it is. `doctor.py` examines a store (`advice.py` writes what is to be added), `sweep.py` removes
what no upload knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamup.client.remote import Appended, Client, ClientError, Upload

__all__ = ["Appended", "Client", "ClientError", "Upload"]


def __getattr__(name: str) -> object:
    """Imported when it is asked for (PEP 562): aiohttp takes longer than everything else a command starts with."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from streamup.client import remote  # noqa: PLC0415 - see above

    return getattr(remote, name)
