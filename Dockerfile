# The images, all from the versions of constraints.txt:
#   docker build -t tag2mask .                               serves on any machine (the same as --target cpu)
#   docker build -t tag2mask:gpu --target gpu .              serves on CUDA, whose libraries it brings; run it with `--gpus all`
#   docker build -t tag2mask-cluster --target cluster .      is a node of a Ray cluster (deploy/kubernetes/ray)
#   docker build -t tag2mask:training --target training .    trains, and takes `python -m training` verbs
# The serving images hold no compiler, no pip and no torch. The gpu image also starts where there is no GPU, on the CPU, unless
# TAG2MASK_DEVICE=cuda asks for one. Everything runs as user 10001 and writes to /tmp alone, so the root file system may be
# read-only. BASE is any image with Debian's or Ubuntu's packages whose python3 is 3.11 or newer.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt /usr/share/doc /usr/share/man /usr/share/locale

FROM python AS service
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tag2mask
WORKDIR /srv/tag2mask
ENV PATH=/opt/tag2mask/bin:$PATH \
    PYTHONPATH=/srv/tag2mask \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TAG2MASK_HOST=0.0.0.0 \
    TAG2MASK_PORT=8000 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['TAG2MASK_PORT']}/healthz\", timeout=4)"]
# The exec form: the server is process 1, so SIGTERM reaches it and it drains.
CMD ["python", "-m", "app"]

FROM service AS install
USER root
# python3-venv brings ca-certificates where the base has none.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && python3 -m venv /opt/tag2mask
WORKDIR /build
# The package is empty here, for its code comes last: a change of the code installs nothing anew.
COPY pyproject.toml constraints.txt ./
RUN mkdir tag2mask && touch tag2mask/__init__.py
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/build/constraints.txt

FROM scratch AS code
COPY app /srv/tag2mask/app
COPY tag2mask /srv/tag2mask/tag2mask
COPY models /srv/tag2mask/models

FROM install AS install-cpu
# Left out: the packages' own tests, and ONNX Runtime's library for programs in C, 29 MB that its module for Python has in itself.
RUN /opt/tag2mask/bin/python -m pip install --quiet ".[cpu]" \
    && /opt/tag2mask/bin/python -m pip uninstall --quiet --yes setuptools pip \
    && find /opt/tag2mask/lib -type d -name tests -prune -exec rm -r {} + \
    && rm /opt/tag2mask/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*

FROM service AS cpu
COPY --from=install-cpu /opt/tag2mask /opt/tag2mask
COPY --from=code / /
# The models that came with the image; another folder is mounted over them. A builder drops what is put into a volume later on.
VOLUME /srv/tag2mask/models

FROM install AS install-gpu
RUN /opt/tag2mask/bin/python -m pip install --quiet ".[gpu]" \
    && /opt/tag2mask/bin/python -m pip uninstall --quiet --yes setuptools pip

FROM service AS gpu
COPY --from=install-gpu /opt/tag2mask /opt/tag2mask
COPY --from=code / /
VOLUME /srv/tag2mask/models

FROM install AS install-cluster
RUN /opt/tag2mask/bin/python -m pip install --quiet ".[cpu,cluster]"

FROM service AS cluster
# KubeRay starts Ray in a login shell, whose PATH is the system's, and asks by wget whether it lives.
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
    && ln -s /opt/tag2mask/bin/ray /opt/tag2mask/bin/serve /usr/local/bin/
USER 10001:10001
COPY --from=install-cluster /opt/tag2mask /opt/tag2mask
COPY --from=code / /
HEALTHCHECK NONE
CMD ["ray", "start", "--head", "--block"]

# It is not copied out of its installation: a copy would take its gigabytes once more while the image is built.
FROM install AS training
RUN /opt/tag2mask/bin/python -m pip install --quiet ".[cpu,training]"
WORKDIR /srv/tag2mask
USER 10001:10001
COPY training /srv/tag2mask/training
COPY experiments /srv/tag2mask/experiments
COPY --from=code / /
HEALTHCHECK NONE
CMD ["python", "-m", "training", "--help"]

FROM cpu
