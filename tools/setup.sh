#!/usr/bin/env bash
# Everything that a fresh machine with Python 3.11 needs, into .venv and .venv-chart: the locked packages,
# byte-compiled, and this project itself. Runs again only when a lock or a script has changed. Needs no root.
# The steps are those of tools/install.sh, which the Dockerfile calls as well.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
venv_tools=.venv-chart

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

# Two environments: the project with its tests, and the tools that check the chart and the images (helm, checkov
# and others: their pins contradict ours). Each is ready once its stamp says what it was made from.
stamp() { cat tools/setup.sh tools/install.sh "$@" | sha256sum | cut -d' ' -f1; }
wanted=$(stamp requirements/cpu.lock requirements/dev.lock pyproject.toml)-$PWD
wanted_tools=$(stamp requirements/chart-tools.lock)-$PWD

if [ "$(cat "$venv/.ready" 2>/dev/null)" != "$wanted" ]; then
  echo "Setting up $venv (once; about three minutes on two cores)"
  rm -f "$venv/.ready"
  [ -x "$venv/bin/python" ] || progress 'virtual environment' "$python" -m venv "$venv"
  progress 'locked packages' tools/install.sh packages "$venv" requirements/cpu.lock requirements/dev.lock
  progress 'byte-compiling' tools/install.sh bytecode "$venv"
  progress 'this project' tools/install.sh project "$venv" -e
  echo "$wanted" > "$venv/.ready"
fi

if [ "$(cat "$venv_tools/.ready" 2>/dev/null)" != "$wanted_tools" ]; then
  echo "Setting up $venv_tools (once; half a minute)"
  rm -f "$venv_tools/.ready"
  [ -x "$venv_tools/bin/python" ] || progress 'virtual environment' "$python" -m venv "$venv_tools"
  progress 'tools for the chart' tools/install.sh packages "$venv_tools" requirements/chart-tools.lock
  progress 'byte-compiling' tools/install.sh bytecode "$venv_tools"
  echo "$wanted_tools" > "$venv_tools/.ready"
fi
