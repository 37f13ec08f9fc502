"""An object's options as botocore's arguments: which of them S3 wants with which operation."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

from streamup.object_options import ObjectOptions
from streamup.stores import ObjectMeta

TOKEN = "streamup-token"  # noqa: S105 - the name of a metadata field


def creation(options: ObjectOptions, meta: ObjectMeta) -> dict[str, Any]:
    """For PutObject and CreateMultipartUpload, where all about an object is said and fixed. None is not sent; a
    customer's key goes beside it.
    """
    context = json.dumps(dict(options.sse_kms_context)).encode() if options.sse_kms_context else None
    return {
        "ContentType": meta.content_type,
        "ContentEncoding": meta.content_encoding,
        "ContentDisposition": meta.content_disposition,
        "CacheControl": meta.cache_control or options.cache_control,
        "Metadata": {**meta.user, TOKEN: meta.token},
        "ServerSideEncryption": options.sse,
        "SSEKMSKeyId": options.sse_kms_key_id,
        "SSEKMSEncryptionContext": base64.b64encode(context).decode() if context else None,
        "BucketKeyEnabled": options.sse_bucket_key,
        "StorageClass": options.storage_class,
        "ACL": options.acl,
        "Tagging": urlencode(options.tags, quote_via=quote) or None,
    }


def customer_key(options: ObjectOptions) -> dict[str, str]:
    """For every operation on an SSE-C object or its parts but Abort and Delete; nothing for other objects.

    Written out whole: botocore does it for some operations only (not for ListParts and GetObjectAttributes).
    """
    if options.sse_c_key is None or options.sse_c_key_md5 is None:
        return {}
    return {
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": base64.b64encode(options.sse_c_key).decode(),
        "SSECustomerKeyMD5": options.sse_c_key_md5,
    }
