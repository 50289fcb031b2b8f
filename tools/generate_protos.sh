#!/usr/bin/env bash
# Generates sovereign/ (messages, stubs, type stubs) from protos/ into the folder given, or the
# repository root. `make protos` runs it; `make check` runs it into a scratch folder and compares.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
python=${PYTHON:-.venv/bin/python}
mapfile -t files < <(cd protos && find sovereign -name '*.proto' | sort)
"$python" -m grpc_tools.protoc -I protos --python_out="$out" --pyi_out="$out" "${files[@]}"
mapfile -t services < <(cd protos && grep -l '^service ' "${files[@]}")
"$python" -m grpc_tools.protoc -I protos --grpc_python_out="$out" "${services[@]}"
find "$out/sovereign" -type d | while read -r folder; do
  echo '"""Generated from protos/ by tools/generate_protos.sh; not to be edited."""' > "$folder/__init__.py"
done
