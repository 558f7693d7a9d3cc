# docker build --target cpu -t dmesr:cpu .      docker build --target gpu -t dmesr:gpu .
# A container in which vLLM starts needs more shared memory than the 64 MB of the default: docker run --shm-size 1g ...
# Not built where it was written (no container engine there): docs/decisions/setup-containers.md says what was tried.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS base
# libnuma and a compiler: vLLM on a CPU, and Triton's kernels on a GPU.
# tcmalloc: trainings allocate with it, docs/decisions/train-allocator.md.
# Unpinned: Debian deletes superseded versions from its mirrors, and a pinned one would soon not build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libnuma1 libtcmalloc-minimal4 gcc g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 dmesr \
    && mkdir -p /srv/dmesr/workspace /home/dmesr/.cache && chown -R 10001 /srv/dmesr /home/dmesr/.cache
WORKDIR /srv/dmesr
USER 10001
ENV HOME=/home/dmesr PATH=/srv/dmesr/.venv/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1 \
    PREFECT_LOGGING_EXTRA_LOGGERS=tasks,storage,flows,dmesr_model,sample_shop
# What decides the environment comes first: a change of the code alone leaves the large layer as it is.
COPY --chown=10001 pyproject.toml constraints.txt LICENSE README.md ./
COPY --chown=10001 setup setup
RUN mkdir flows tasks dmesr_model storage sample_shop
# The worker answers on this port while it reaches its server.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=10)"]
CMD ["prefect", "worker", "start", "--pool", "dmesr", "--type", "process", "--with-healthcheck"]

FROM base AS cpu
RUN DMESR_PROFILE=cpu DMESR_EXTRAS="" sh setup/install.sh .venv
COPY --chown=10001 . .

FROM base AS gpu
RUN DMESR_PROFILE=gpu DMESR_EXTRAS="" sh setup/install.sh .venv
COPY --chown=10001 . .
