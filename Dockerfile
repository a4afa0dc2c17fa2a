# An image that encodes and decodes without a network and as any user: docs/index.md has the commands.
FROM python:3.12-slim
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# PyTorch for the CPU; https://pypi.org/simple has the one with CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /usr/src/tokcodec
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" -c constraints.txt torch

COPY pyproject.toml LICENSE ./
COPY docs/index.md docs/
COPY tokcodec tokcodec
RUN pip install --no-cache-dir -c constraints.txt .

# The loop is compiled here; on a CPU of another kind again, once a container. Whoever runs it must be able to write there.
ENV NUMBA_CACHE_DIR=/var/cache/tokcodec HOME=/tmp
RUN tokcodec compile --profile lfq && chmod -R a+rwX "$NUMBA_CACHE_DIR"

WORKDIR /data
USER 1000:1000
ENTRYPOINT ["tokcodec"]
CMD ["--help"]
