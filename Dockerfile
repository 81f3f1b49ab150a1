# syntax=docker/dockerfile:1.7
# The order platform: one image for all of its processes. What a container runs, docker-compose.yaml says.

FROM python:3.11-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# All that is locked, each file checked against its hash. Later steps take from here and from nowhere else.
COPY requirements.lock ./
RUN python -m pip download --require-hashes --only-binary=:all: --requirement requirements.lock --dest /wheels

# Of that, what the application needs: the library with its extras, and the group `app` of pyproject.toml.
COPY pyproject.toml README.md LICENSE ./
COPY sagas_framework sagas_framework
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-index --find-links /wheels \
        ".[postgres,redis,console,cli,asyncapi,otel]" flask waitress \
        opentelemetry-sdk opentelemetry-exporter-otlp-proto-http opentelemetry-exporter-prometheus


# What browsers draw the docs pages with: from npm, in the locked version, checked against its hash.
FROM node:24-bookworm-slim AS renderer
WORKDIR /build
COPY tools/asyncapi/package.json tools/asyncapi/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund \
    && mkdir asyncapi-ui && cd node_modules/@asyncapi/react-component \
    && cp LICENSE browser/standalone/index.js browser/standalone/index.js.LICENSE.txt styles/default.min.css \
        /build/asyncapi-ui/


FROM python:3.11-slim-bookworm
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore wheel setuptools pip \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app /archive
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY --from=renderer /build/asyncapi-ui build/asyncapi-ui
COPY app_common app_common
COPY order_service order_service
COPY consumer_service consumer_service
COPY restaurant_service restaurant_service
COPY accounting_service accounting_service
COPY inventory_service inventory_service
COPY delivery_service delivery_service
COPY notification_service notification_service
RUN ["python", "-m", "compileall", "-q", "/app"]

USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=15s --retries=3 --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/healthz', timeout=10)"]
CMD ["python", "-m", "waitress", "--host", "0.0.0.0", "--port", "5000", "--call", "order_service.web:create_app"]
