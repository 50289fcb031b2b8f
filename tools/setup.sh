#!/usr/bin/env bash
# Everything that a fresh machine with Python 3.11 needs, into .venv: the locked packages, byte-compiled,
# and this project itself. Runs again only when a lock or this script has changed. Needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
torch_index=https://download.pytorch.org/whl/cpu

say() { printf '  %s\n' "$*"; }
# Runs a command in the background and says every five seconds that it still goes on.
progress() {
  local what=$1 started=$SECONDS log=.state/setup.log
  shift
  mkdir -p .state
  "$@" >"$log" 2>&1 &
  local pid=$!
  trap 'kill "$pid" 2>/dev/null || true' EXIT INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    if (( (SECONDS - started) % 5 == 0 && SECONDS != ${last:-0} )); then
      last=$SECONDS
      say "$what … $((SECONDS - started)) s"
    fi
  done
  if ! wait "$pid"; then
    tail -n 25 "$log" >&2
    printf 'setup: "%s" failed; the whole output is in %s\n' "$what" "$log" >&2
    exit 1
  fi
  trap - EXIT INT TERM
  say "$what: done in $((SECONDS - started)) s"
}

python=${PYTHON_BASE:-}
for candidate in python3.11 python3; do
  [ -n "$python" ] && break
  if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$candidate; fi
done
if [ -z "$python" ]; then
  echo 'setup: Python 3.11 is needed, since the lock is for it; name one with PYTHON_BASE=/path/to/python3.11' >&2
  exit 1
fi

stamp=$(cat requirements/cpu.lock requirements/dev.lock pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1)-$PWD
if [ "$(cat "$venv/.ready" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
echo 'Setting up .venv (once; about three minutes on two cores)'
rm -f "$venv/.ready"
[ -x "$venv/bin/python" ] || progress 'virtual environment' "$python" -m venv "$venv"

pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
install=("${pip[@]}" install --no-deps --no-compile)
torch=$(grep '^torch==' requirements/cpu.lock)
if ! "${pip[@]}" install --dry-run --quiet --no-deps "$torch" >/dev/null 2>&1; then
  say 'pip is not configured with a CPU build of torch: taking it from PyTorch'
  install+=(--extra-index-url "$torch_index")
fi
progress 'locked packages' "${install[@]}" -r requirements/cpu.lock -r requirements/dev.lock
# An import of vLLM that has to compile takes 30 s instead of 9.
progress 'byte-compiling' bash -c '"$1" -m compileall -q -j 0 "$2"/lib/python3.11/site-packages || true' _ "$venv/bin/python" "$venv"
progress 'this project' "${install[@]}" --no-build-isolation -e .
echo "$stamp" > "$venv/.ready"
