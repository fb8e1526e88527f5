FROM python:3.13.16-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements requirements
COPY script/setup script/setup
RUN script/setup

FROM python:3.13.16-slim-bookworm
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
RUN useradd --system --home-dir /app devicehub && mkdir -p var && chown devicehub var
USER devicehub
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["gunicorn", "-c", "config/gunicorn.conf.py", "--bind", "0.0.0.0:8000", "config.asgi:application"]
