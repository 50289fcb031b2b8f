#!/usr/bin/env bash
# Generated code must be what protos/ says, and protos/ must not break what was released; docs/metrics.md must be
# what the catalogue of metrics says, and the chart's schema and README what its values say.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PYTHON=${PYTHON:-.venv/bin/python} tools/generate_protos.sh "$scratch"
if ! diff -r -x __pycache__ "$scratch/sovereign" sovereign >"$scratch/diff"; then
  head -n 20 "$scratch/diff" >&2
  echo 'drift: sovereign/ is not what protos/ generates; run "make protos"' >&2
  exit 1
fi
"${PYTHON:-.venv/bin/python}" -m tools.metrics_table --check
"${PYTHON:-.venv/bin/python}" -m tools.chart.generate --check
# The reference is the newest release; before the first one, the protos may still move.
reference=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$reference" ]; then
  (cd protos && ../.venv/bin/buf breaking --against "../.git#tag=$reference,subdir=protos")
else
  echo 'drift: generated code is current (no release yet to compare the protos with)'
fi
