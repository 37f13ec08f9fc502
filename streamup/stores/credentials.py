"""The usual AWS chain of credentials, in a process that outlives them.

botocore renews by itself those whose end it was told (roles: web identity, container, instance), and reads a file once.
Here the chain is asked anew, too, when the store has called its credentials expired or does not know them (any more).
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.credentials import AioCredentials, AioProcessProvider  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

RENEW_SECONDS = 10.0
"""Younger credentials than this are not given up for a refusal that may be about permissions as well."""

ANSWER_SECONDS = 10
"""How long one attempt at STS may take. The next one is made with the store's next call, as in any outage."""

SEARCH_SECONDS = 60.0
"""How long a whole search may take. Providers bound each of their attempts, but nobody bounds a program
(`credential_process`): one may take a while to sign on somewhere, and one that asks a terminal never ends.
"""

Search = asyncio.Task[Any]


class CredentialChain(AioCredentials):  # type: ignore[misc]  # aiobotocore ships no types
    """What a session's clients sign with.

    However many calls need credentials, one search at a time looks for them, and all share what it finds, or its
    failure. It outlives a call that gives up.
    """

    def __init__(self) -> None:
        super().__init__("", "")
        self._search: Search | None = None
        self._began = 0.0
        self._used = ContextVar[Search | None]("the search whose credentials this task has signed with", default=None)

    async def load_credentials(self) -> Self:
        """What a session's credential_provider is asked for."""
        return self

    async def get_frozen_credentials(self) -> Any:
        """Raises `NoCredentialsError`, `PartialCredentialsError` and, whatever else a provider raises,
        `CredentialRetrievalError`.
        """
        search = self._search
        if search is None:
            search = self._search = asyncio.create_task(_found_in_time(), name="credentials")
            search.add_done_callback(self._ended)
            self._began = asyncio.get_running_loop().time()
        self._used.set(search)
        try:
            found = await asyncio.shield(search)
            return await found.get_frozen_credentials()
        except (NoCredentialsError, PartialCredentialsError):
            self.forget()
            raise
        except Exception as error:
            self.forget()
            raise CredentialRetrievalError(provider="the usual places", error_msg=str(error)) from error

    def forget(self, *, older_than: float = 0.0) -> None:
        """What this task has signed with was refused: look for others, unless somebody has begun to already. Of many
        that are refused together, one asks.
        """
        if self._used.get() is self._search and asyncio.get_running_loop().time() >= self._began + older_than:
            self._search = None

    def _ended(self, search: Search) -> None:
        """All who waited may have given up: a failure is noticed here, and the next call does not meet it again."""
        if (search.cancelled() or search.exception()) and search is self._search:
            self._search = None

    def close(self) -> None:
        if self._search is not None:
            self._search.cancel()


async def _found_in_time() -> Any:
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            return await _find()
    except TimeoutError as error:
        raise TimeoutError(
            f"no answer within {SEARCH_SECONDS:g} s. Does a credential_process hang, or a metadata service?"
        ) from error


async def _find() -> Any:
    session = AioSession()
    # Many attempts in a row would sleep on while STS has long come back; when to try again is the uploader's decision.
    attempts = {"mode": "standard", "total_max_attempts": 1}
    session.set_default_client_config(
        AioConfig(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries=attempts)
    )
    profile = session.get_config_variable("profile") or "default"
    session.get_component("credential_provider").insert_before(
        AioProcessProvider.METHOD, AioProcessProvider(profile, lambda: session.full_config, popen=_Program.start)
    )
    found = await session.get_credentials()
    if found is None:
        raise NoCredentialsError
    await found.get_frozen_credentials()  # a role's are fetched only now
    return found


class _Program:
    """A `credential_process` that does not outlive whoever waits for it; aiobotocore would leave it behind."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *arguments: str, **options: Any) -> Self:
        return cls(await asyncio.create_subprocess_exec(*arguments, **options))

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        try:
            return await self._process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                self._process.kill()
            raise
