"""aiobotocore's way to the store, except that objects are read in threads (`bodies`)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiobotocore.awsrequest import AioAWSResponse  # type: ignore[import-untyped]
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from botocore.awsrequest import AWSPreparedRequest, AWSResponse  # type: ignore[import-untyped]
from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]

from streamup.stores.bodies import answered


class Session(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """Requests whose answer is a stream go over botocore's own blocking session, so that proxies, certificates and all
    that is configured are as botocore has them. `stall_seconds`: without a byte of such a stream.
    """

    def __init__(self, *, stall_seconds: float, timeout: Any, connector_args: Any = None, **options: Any) -> None:
        super().__init__(timeout=timeout, connector_args=connector_args, **options)
        self._blocking = URLLib3Session(timeout=(timeout[0], stall_seconds), **options)

    async def send(self, request: AWSPreparedRequest) -> Any:
        if not request.stream_output:
            return await super().send(request)
        answer = await answered(lambda: self._ask(request), lambda late: late.raw.close())
        return _Answer(answer)

    def _ask(self, request: AWSPreparedRequest) -> AWSResponse:
        answer = self._blocking.send(request)
        if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            _ = answer.content  # the words of a refusal are read here, too
        return answer

    async def __aexit__(self, *raised: object) -> None:
        await super().__aexit__(*raised)
        self._blocking.close()


class _Answer(AioAWSResponse):  # type: ignore[misc]  # as above
    """What came, as aiobotocore expects it."""

    def __init__(self, answer: AWSResponse) -> None:
        super().__init__(answer.url, answer.status_code, answer.headers, answer.raw)
        self._answer = answer

    async def _content_prop(self) -> bytes:
        content: bytes = self._answer.content
        return content
