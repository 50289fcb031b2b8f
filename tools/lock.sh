#!/usr/bin/env bash
# Makes control.lock, gpu.lock and chart-tools.lock anew, from their .in files and cpu.lock (requirements/README.md).
# Needs uv on PATH, and the package index. What resolves does not always run: `make test` before committing.
set -euo pipefail
cd "$(dirname "$0")/.."
platform=x86_64-manylinux_2_36

# lock FILE FIRST-LINE ARGUMENT...: the pins alone, under one line that says what they are for.
lock() {
  local file=requirements/$1 first=$2
  shift 2
  uv pip compile --quiet --python-version 3.11 --python-platform $platform --only-binary :all: \
    --no-annotate --no-header "$@" | grep -v '^-e' > "$file.new"
  { echo "# $first"; cat "$file.new"; } > "$file"
  rm "$file.new"
  echo "$file: $(grep -c == "$file") pins"
}

lock control.lock 'What a control plane, meshctl and the SDK need, in the versions of cpu.lock: no engine, no index.' \
  requirements/control.in --constraint requirements/cpu.lock
lock gpu.lock 'Exact pins for Python 3.11 on x86-64 Linux with NVIDIA GPUs (CUDA 13). Resolved, never run: see README.md.' \
  requirements/gpu.in --override requirements/gpu-overrides.txt --constraint requirements/control.lock
lock chart-tools.lock 'What checks the chart, the Dockerfile and the workflows, in .venv-chart. Installed with --no-deps.' \
  requirements/chart-tools.in
