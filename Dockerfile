# The serving image: app/, models/ and what `make serve` installs; no torch, no training code.
#   docker build -t tag2mask .                                 any machine
#   docker build -t tag2mask --build-arg RUNTIME=gpu .         with CUDA and cuDNN; run it with `--gpus all`
# RUNTIME is cpu by default: that image runs everywhere and is a fraction of the size, and who has a GPU must name it at `docker run` anyway.
# The gpu image also starts where there is no GPU, on the CPU, unless TAG2MASK_DEVICE=cuda asks for one.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

FROM python AS install
ARG RUNTIME=cpu
# python3-venv brings ca-certificates where the base has none.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
WORKDIR /build
# Of the code the client and the command alone: a change of app/ or models/ installs nothing anew.
COPY pyproject.toml constraints.txt ./
COPY tag2mask tag2mask
RUN case "${RUNTIME}" in cpu|gpu) ;; *) echo "RUNTIME is '${RUNTIME}'; it must be cpu or gpu." >&2; exit 1 ;; esac \
    && python3 -m venv /opt/tag2mask \
    && /opt/tag2mask/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt ".[${RUNTIME}]" \
    && /opt/tag2mask/bin/python -m pip uninstall --quiet --yes setuptools pip

FROM python
RUN useradd --system --no-create-home --home-dir /srv/tag2mask --shell /usr/sbin/nologin tag2mask
WORKDIR /srv/tag2mask
COPY --from=install /opt/tag2mask /opt/tag2mask
COPY app app
COPY models models
ENV PATH=/opt/tag2mask/bin:$PATH \
    PYTHONPATH=/srv/tag2mask \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TAG2MASK_HOST=0.0.0.0 \
    TAG2MASK_PORT=8000 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER tag2mask
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['TAG2MASK_PORT']}/healthz\", timeout=4)"]
# The exec form: the server is process 1, so SIGTERM reaches it and it drains.
CMD ["python", "-m", "app"]
