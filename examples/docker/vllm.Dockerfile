# vLLM's image with fastload in it. Its torch, and all else that it has, stays as it is: what fastload needs is there already.
# Build in the checkout: docker build -f examples/docker/vllm.Dockerfile -t registry.example.com/fastload/vllm:0.32.0-0.1.0 .
# 0.32.0 is the newest vLLM in which fastload's tests run, as a build for the CPU; this image has not been run here. Put its digest here.
FROM vllm/vllm-openai:v0.32.0
COPY . /tmp/fastload
RUN set -eu; \
    before=$(pip freeze | sort); \
    pip install --no-cache-dir --no-deps /tmp/fastload; \
    after=$(pip freeze --exclude fastload-llm | sort); \
    test "$before" = "$after"; \
    if pip check | grep fastload; then exit 1; fi; \
    python3 -c 'from importlib.metadata import entry_points; entry_points(group="vllm.general_plugins")["fastload"].load()'; \
    rm -rf /tmp/fastload
USER 1000:1000
