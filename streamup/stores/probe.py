"""What a store can do, found out at the start of a server: a few tiny objects and multipart uploads, removed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from streamup.errors import AccessDenied, ConfigError, StoreRefused, StoreUnavailable
from streamup.stores import Checksum
from streamup.stores.experiments import LIST, Compared, Permission, Trial, trial
from streamup.stores.profiles import BOTH, StoreProfile
from streamup.stores.s3 import S3Store


async def probe(store: S3Store, name: str) -> tuple[str, ...]:
    """Find out what the store can do and let it `adopt` that. Returns a sentence for each thing it cannot do.

    `name` is the server's own, and the same at each start: what one has left that died meanwhile goes with the next.
    Raises `ConfigError` if the bucket or a permission is missing, `StoreUnavailable` if the store cannot be asked now.
    """
    known = await _known(store)
    store.adopt(known)
    async with trial(store, known, name) as begun:
        found, remarks = await _found(begun)
    store.adopt(found)
    return (*_shortcomings(found), *remarks)


async def _known(store: S3Store) -> StoreProfile:
    try:
        return await store.recognise()
    except AccessDenied as error:
        raise _denied(store.bucket, LIST, error) from error
    except StoreUnavailable as error:
        if error.code != "NoSuchBucket":
            raise
        raise ConfigError(f"{error} Create it, or name another one (s3://BUCKET/PREFIX).") from error


async def _found(trial: Trial) -> tuple[StoreProfile, list[str]]:
    """The profile by experiment, and what is left to say about the experiments themselves."""
    try:
        await _permissions(trial)
        await _prefixes(trial)
        kept = frozenset([checksum for checksum in BOTH if await trial.compares(checksum) is Compared.YES])
        found = replace(
            trial.known,
            checksums=kept,
            content_md5=Checksum.CRC64NVME in kept or await trial.compares_content_md5(),
            conditional_put=await trial.conditional_put(),
            conditional_complete=await trial.conditional_complete(),
        )
    finally:
        remarks = await trial.clean()
    return found, remarks


async def _permissions(trial: Trial) -> None:
    for permission, attempt in trial.attempts():
        if permission.starts:
            try:
                await attempt()
            except AccessDenied as error:
                raise _denied(trial.store.bucket, permission, error) from error


async def _prefixes(trial: Trial) -> None:
    """What is configured for a prefix is met by a refusal now rather than by the first client."""
    for prefix in trial.store.objects.prefixes:
        try:
            await trial.begin_below(prefix)
        except (AccessDenied, StoreRefused) as error:
            raise ConfigError(
                f"The store refuses an upload below {prefix} with what [prefix.{prefix!r}] says of it. Mend that, or "
                f"the permissions. The store said: {error}"
            ) from error


def _denied(bucket: str, permission: Permission, error: AccessDenied) -> ConfigError:
    if error.code == "NoCredentials":
        return ConfigError(
            "There are no credentials for the store. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or run where an instance or container role provides them."
        )
    actions = " and ".join(permission.actions)
    return ConfigError(
        f"The store does not let these credentials in, or they lack {actions} on bucket {bucket!r} (with SSE-KMS "
        f"also kms:GenerateDataKey and kms:Decrypt). Grant it, or use others. The store said: {error}"
    )


def _shortcomings(profile: StoreProfile) -> Iterator[str]:
    if Checksum.CRC64NVME not in profile.checksums:
        yield (
            "This store does not check CRC64NVME: parts go with Content-MD5 instead (2 CPU-seconds per GiB more)."
            if profile.content_md5
            else "This store checks neither CRC64NVME nor Content-MD5: damage on the way to it goes unnoticed."
        )
    if Checksum.SHA256 not in profile.checksums:
        yield "This store does not check SHA-256: uploads that ask for it are refused."
    if not (profile.conditional_put and profile.conditional_complete):
        yield "This store does not honour If-None-Match: uploads that ask for it are refused."
    if profile.limits.equal_parts:
        yield "This store wants equal parts: streams of unknown length need --layout equal, which has a largest size."
