"""What an S3 answer that is not a success means, as one of our errors: by its code, else by its status."""

from __future__ import annotations

from http import HTTPStatus

from streamup.errors import (
    AccessDenied,
    BadDigest,
    CredentialsExpired,
    InvalidPart,
    NoSuchMultipart,
    NoSuchObject,
    StoreConflict,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)

WORDLESS = "400"
"""What botocore makes of a 400 without a body."""

CODES: dict[str, type[StoreError]] = {
    # The answer to a HEAD has no body, and expired credentials look like this then. (So does an SSE-C object that is
    # asked for without its key: that can be mended, too, while the bytes wait.)
    WORDLESS: CredentialsExpired,
    "AccessDenied": AccessDenied,
    "BandwidthLimitExceeded": StoreThrottled,
    # Configuration and quotas: somebody can mend them while the bytes wait in the spool.
    "AuthorizationHeaderMalformed": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "InvalidToken": CredentialsExpired,
    "KMS.DisabledException": AccessDenied,
    "KMS.KMSInvalidStateException": AccessDenied,
    "KMS.NotFoundException": AccessDenied,
    "KMS.ThrottlingException": StoreThrottled,
    "OperationAborted": StoreUnavailable,
    "QuotaExceeded": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "XMinioAdminBucketQuotaExceeded": AccessDenied,
    "XMinioStorageFull": AccessDenied,
    "BadDigest": BadDigest,
    "ConditionalRequestConflict": StoreConflict,
    "EntityTooSmall": InvalidPart,
    "ErrTooManyRequest": StoreThrottled,
    "ExpiredToken": CredentialsExpired,
    "ExpiredTokenException": CredentialsExpired,
    "IncompleteBody": StoreUnavailable,
    "InvalidDigest": BadDigest,
    "InvalidPart": InvalidPart,
    "InvalidPartOrder": InvalidPart,
    # Held, not given up: a bucket can be made again while the bytes wait in the spool, just as a permission.
    "NoSuchBucket": StoreUnavailable,
    "NoSuchKey": NoSuchObject,
    "NoSuchUpload": NoSuchMultipart,
    "NotImplemented": StoreRefused,
    "PreconditionFailed": StorePrecondition,
    "RequestExpired": CredentialsExpired,
    "RequestTimeTooSkewed": CredentialsExpired,
    "RequestTimeout": StoreUnavailable,
    "RequestLimitExceeded": StoreThrottled,
    "SlowDown": StoreThrottled,
    "Throttling": StoreThrottled,
    "ThrottlingException": StoreThrottled,
    "TokenRefreshRequired": CredentialsExpired,
    "XAmzContentChecksumMismatch": BadDigest,
    "XAmzContentSHA256Mismatch": BadDigest,
}
"""By the code in the answer's body, which says more than its status: a 200 may carry one too."""

STATUSES: dict[int, type[StoreError]] = {
    404: NoSuchObject,
    401: AccessDenied,
    403: AccessDenied,
    408: StoreUnavailable,
    409: StoreConflict,
    412: StorePrecondition,
    429: StoreThrottled,
    501: StoreRefused,
    503: StoreThrottled,
}
"""For codes that are not known, and for HEAD, whose answers have no body and so no code."""


def refusal(operation: str, status: int, code: str, message: str) -> StoreError:
    """The error for this answer. A status that is in no table: 4xx are definite, all others ask for another attempt."""
    definite = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    if code == WORDLESS:
        message = "expired credentials, or an object that needs another key (SSE-C)"
    kind = CODES.get(code) or STATUSES.get(status) or (StoreRefused if definite else StoreUnavailable)
    return kind(f"{operation}: {status} {code}: {message}", status=status, code=code)
