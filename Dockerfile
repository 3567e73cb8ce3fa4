# Two images: `provisioner` (migrate, worker, beat, flower and the command) and `gateway` (an OpenClaw to try
# it on). Nothing is compiled: every package comes as a wheel, by its hash, and neither image holds a compiler.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /build && python -m venv --without-pip /opt/provisioner
WORKDIR /src
COPY requirements-image.lock ./
RUN /build/bin/pip --python /opt/provisioner/bin/python install \
      --require-hashes --only-binary :all: -r requirements-image.lock \
    && /build/bin/pip install setuptools==84.2.1
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY tasks tasks
COPY models models
COPY templates templates
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/provisioner/bin/python install --no-deps --no-index /wheels/*.whl \
    && rm -r /opt/provisioner/lib/python3*/site-packages/worker/lab

FROM ${PYTHON_IMAGE} AS provisioner
# The folder is made here so that a named volume mounted on it belongs to the account.
RUN groupadd --gid 10001 provisioner \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /var/lib/provisioner \
      --shell /usr/sbin/nologin provisioner \
    && chmod 0700 /var/lib/provisioner
COPY --from=build /opt/provisioner /opt/provisioner
ENV PATH=/opt/provisioner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_DEVICE_KEY=/var/lib/provisioner/device.pem \
    HEALTH_FILE=/tmp/provisioner-health \
    LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/provisioner
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "worker.app", "worker"]

FROM ${NODE_IMAGE} AS openclaw
ARG OPENCLAW=2026.9.6
WORKDIR /opt/openclaw
RUN npm install --ignore-scripts --no-audit --no-fund --no-save "openclaw@${OPENCLAW}" \
    && npm cache clean --force

FROM ${NODE_IMAGE} AS gateway
RUN mkdir -m 0700 /var/lib/openclaw && chown 1000:1000 /var/lib/openclaw
COPY --from=openclaw /opt/openclaw /opt/openclaw
COPY --chmod=0755 docker/gateway /usr/local/bin/gateway
COPY --chmod=0755 docker/openclaw /usr/local/bin/openclaw
ENV HOME=/var/lib/openclaw \
    OPENCLAW_STATE_DIR=/var/lib/openclaw \
    OPENCLAW_CONFIG_PATH=/var/lib/openclaw/openclaw.json \
    OPENCLAW_NO_RESPAWN=1 \
    NODE_ENV=production \
    NO_COLOR=1
USER 1000:1000
WORKDIR /var/lib/openclaw
CMD ["gateway"]
