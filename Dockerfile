# The images: `cpu` and `gpu` are a node, a control plane and the command line; `control` is without engine and index.
# They are built by the steps that `make setup` runs (tools/install.sh), from the same locks. docs/images.md says how.
# Same sources, same SOURCE_DATE_EPOCH, same DEBIAN_ARCHIVE: same bytes. Bases are pinned by digest, Debian's packages
# by a date in its archive.

# What all of them start from: the user that they run as, and its folders.
FROM docker.io/library/python:3.11.16-slim-trixie@sha256:da047cb8f9d1d98e5c070f5300ba9f7274e33b8fc0e5be5ed88740aed1b95ba9 AS base
# The address of Debian's archive by date, or of a mirror of it. Without one, packages are those of the day.
ARG DEBIAN_ARCHIVE=
ARG DEBIAN_SNAPSHOT=20260924T000000Z
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Written by hand, since useradd puts the day into /etc/shadow. Ray and torch look their user's name up.
RUN echo 'mesh:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'mesh:x:10001:' >> /etc/group \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/sovereign-mesh \
    && install -d -m 0755 /etc/sovereign-mesh /models \
    && if [ -n "${DEBIAN_ARCHIVE}" ]; then sed -i -E "s#^URIs: .*/debian-security/?\$#URIs: ${DEBIAN_ARCHIVE}/debian-security/${DEBIAN_SNAPSHOT}#; s#^URIs: .*/debian/?\$#URIs: ${DEBIAN_ARCHIVE}/debian/${DEBIAN_SNAPSHOT}#" /etc/apt/sources.list.d/debian.sources; fi
ENV PATH=/opt/sovereign-mesh/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The locked packages, one stage for each lock, so that a change of the sources does not install them again. Where pip
# has to be told of a mirror, its configuration is the build secret `pip`; it is in no layer.
FROM base AS build
ARG SOURCE_DATE_EPOCH
ENV PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/sovereign-mesh
COPY tools/install.sh tools/install.sh

FROM build AS build-cpu
COPY requirements/cpu.lock requirements/cpu.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf tools/install.sh packages /opt/sovereign-mesh requirements/cpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY sovereign sovereign
COPY mesh mesh
COPY control control
COPY node node
RUN tools/install.sh project /opt/sovereign-mesh \
    && tools/install.sh strip /opt/sovereign-mesh \
    && tools/install.sh bytecode /opt/sovereign-mesh

FROM build AS build-gpu
COPY requirements/gpu.lock requirements/gpu.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf tools/install.sh packages /opt/sovereign-mesh requirements/gpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY sovereign sovereign
COPY mesh mesh
COPY control control
COPY node node
RUN tools/install.sh project /opt/sovereign-mesh \
    && tools/install.sh strip /opt/sovereign-mesh \
    && tools/install.sh bytecode /opt/sovereign-mesh

FROM build AS build-control
COPY requirements/control.lock requirements/control.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf tools/install.sh packages /opt/sovereign-mesh requirements/control.lock
COPY pyproject.toml README.md LICENSE ./
COPY sovereign sovereign
COPY mesh mesh
COPY control control
COPY node node
RUN tools/install.sh project /opt/sovereign-mesh \
    && tools/install.sh strip /opt/sovereign-mesh \
    && tools/install.sh bytecode /opt/sovereign-mesh

# A control plane, meshctl and the SDK.
FROM base AS control
COPY --from=build-control /opt/sovereign-mesh /opt/sovereign-mesh
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="Sovereign Mesh: control plane" \
      org.opencontainers.image.source="https://github.com/sovereign-mesh/sovereign-mesh" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /var/lib/sovereign-mesh
USER 10001:10001
EXPOSE 7443 7444 9464
# Kubernetes probes /livez and /readyz itself, and knows what to do; a check in the image would know less.
HEALTHCHECK NONE
CMD ["mesh-control", "--config", "/etc/sovereign-mesh/mesh-control.yaml"]

# A node with vLLM on GPUs. CUDA's libraries come with the lock, the driver from the machine.
FROM base AS gpu
# Triton, which vLLM's kernels are written in, compiles a launcher for each of them on the machine that runs it: the
# one image with a compiler. The snapshot's date pins the versions.
# hadolint ignore=DL3008
RUN apt-get -o Acquire::Check-Valid-Until=false update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libnuma1 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/cache/apt/*
COPY --from=build-gpu /opt/sovereign-mesh /opt/sovereign-mesh
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="Sovereign Mesh: node on GPUs" \
      org.opencontainers.image.source="https://github.com/sovereign-mesh/sovereign-mesh" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/sovereign-mesh
USER 10001:10001
EXPOSE 7443 9464
# As for `control`.
HEALTHCHECK NONE
CMD ["mesh-node", "--config", "/etc/sovereign-mesh/mesh-node.yaml"]

# A node with vLLM on CPUs, the default.
FROM base AS cpu
# vLLM's CPU kernels are linked against it, and no wheel brings it. The snapshot's date pins the version.
# hadolint ignore=DL3008
RUN apt-get -o Acquire::Check-Valid-Until=false update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/cache/apt/*
COPY --from=build-cpu /opt/sovereign-mesh /opt/sovereign-mesh
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="Sovereign Mesh: node on CPUs" \
      org.opencontainers.image.source="https://github.com/sovereign-mesh/sovereign-mesh" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /var/lib/sovereign-mesh
USER 10001:10001
EXPOSE 7443 9464
# As for `control`.
HEALTHCHECK NONE
CMD ["mesh-node", "--config", "/etc/sovereign-mesh/mesh-node.yaml"]
