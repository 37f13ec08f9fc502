"""An HTTP body into an object, as one would write it first: parts in memory, four on their way, nothing on disk."""

import asyncio
import sys
from typing import Any

import aiobotocore.session
from aiohttp import web

PART_BYTES, PARALLEL = 8 << 20, 4


async def put(request: web.Request) -> web.Response:
    s3, key = request.app["s3"], request.match_info["key"]
    upload_id = (await s3.create_multipart_upload(Bucket="bench", Key=key))["UploadId"]
    slots = asyncio.Semaphore(PARALLEL)

    async def send(number: int, body: bytes) -> dict[str, Any]:
        try:
            part = await s3.upload_part(Bucket="bench", Key=key, UploadId=upload_id, PartNumber=number, Body=body)
        finally:
            slots.release()
        return {"PartNumber": number, "ETag": part["ETag"]}

    try:
        async with asyncio.TaskGroup() as group:
            tasks, buffer = [], bytearray()
            async for chunk in request.content.iter_chunked(64 << 10):
                buffer += chunk
                if len(buffer) >= PART_BYTES:
                    await slots.acquire()
                    tasks.append(group.create_task(send(len(tasks) + 1, bytes(buffer))))
                    buffer.clear()
            await slots.acquire()
            tasks.append(group.create_task(send(len(tasks) + 1, bytes(buffer))))
    except BaseException:
        await s3.abort_multipart_upload(Bucket="bench", Key=key, UploadId=upload_id)
        raise
    parts = {"Parts": [task.result() for task in tasks]}
    await s3.complete_multipart_upload(Bucket="bench", Key=key, UploadId=upload_id, MultipartUpload=parts)
    return web.Response(status=201)


async def make() -> web.Application:
    app = web.Application()
    app.router.add_put("/objects/{key}", put)

    async def with_s3(app: web.Application) -> Any:
        async with aiobotocore.session.get_session().create_client("s3") as app["s3"]:
            yield

    app.cleanup_ctx.append(with_s3)
    return app


web.run_app(make(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
