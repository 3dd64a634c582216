# The image of init containers, Jobs and the resident warmer: fastload without torch, less than 150 MB of packages, any uid.
# Build in the checkout: docker build -f examples/docker/warm.Dockerfile -t registry.example.com/fastload/warm:0.1.0 .
# Put the digest of your base image here; its Python must be that of the vLLM image, into which /opt/fastload may be copied.
FROM python:3.12-slim-bookworm AS build
COPY . /src
# Two folders: /opt/fastload is the package alone, which can lie beside another image's libraries without hiding them.
RUN pip install --no-cache-dir --no-compile --no-deps --target /opt/fastload /src
RUN pip install --no-cache-dir --no-compile --target /opt/all /src && rm -rf /opt/all/fastload /opt/all/fastload_llm-*

FROM python:3.12-slim-bookworm
COPY --from=build /opt/fastload /opt/fastload
COPY --from=build /opt/all /opt/all
ENV PYTHONPATH=/opt/fastload:/opt/all PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that runAsNonRoot can tell; any other uid does as well, since nothing here is its own.
USER 1000:1000
ENTRYPOINT ["python", "-m", "fastload"]
