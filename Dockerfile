# docker build --target cpu -t dmesr:cpu .      docker build --target gpu -t dmesr:gpu .
# Not built where it was written (no container engine there): see docs/decisions/setup-containers.md for what was tried.

FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libgomp1 libnuma1 gcc g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 dmesr \
    && mkdir -p /srv/dmesr /srv/workspace && chown dmesr /srv/dmesr /srv/workspace
WORKDIR /srv/dmesr
USER dmesr
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 \
    PATH=/srv/dmesr/.venv/bin:$PATH \
    PREFECT_LOGGING_EXTRA_LOGGERS=tasks,storage,flows,dmesr_model,sample_shop
# What decides the environment first: a change of the code alone leaves this layer as it is.
COPY --chown=dmesr pyproject.toml constraints.txt LICENSE README.md ./
COPY --chown=dmesr setup setup
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; url = os.environ.get('PREFECT_API_URL'); url and urllib.request.urlopen(url + '/health', timeout=10)"]
CMD ["dmesr", "--help"]

FROM base AS cpu
RUN mkdir flows tasks dmesr_model storage sample_shop && DMESR_PROFILE=cpu DMESR_EXTRAS= sh setup/install.sh .venv
COPY --chown=dmesr . .

FROM base AS gpu
RUN mkdir flows tasks dmesr_model storage sample_shop && DMESR_PROFILE=gpu DMESR_EXTRAS= sh setup/install.sh .venv
COPY --chown=dmesr . .
