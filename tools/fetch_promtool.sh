#!/usr/bin/env bash
# Prints the folder that promtool and prometheus are in: PATH's, or Debian's package, downloaded and unpacked into
# .state/tools without installing anything. Where neither can be had: one line on stderr, exit code 3.
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v promtool >/dev/null; then
  dirname "$(command -v promtool)"
  exit 0
fi
folder=$PWD/.state/tools/prometheus
if [ ! -x "$folder/usr/bin/promtool" ]; then
  for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { echo "no promtool on PATH, and no $tool to get one" >&2; exit 3; }
  done
  mkdir -p "$PWD/.state/tools"
  scratch=$(mktemp -d "$PWD/.state/tools/fetching.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  # apt checks the package's signature through its lists.
  if ! (cd "$scratch" && timeout 120 apt-get -q download prometheus >log 2>&1); then
    echo "no promtool on PATH, and Debian's package cannot be downloaded: $(tail -n 1 "$scratch/log")" >&2
    exit 3
  fi
  dpkg-deb -x "$scratch"/prometheus_*.deb "$scratch/prometheus"
  rm -rf "$folder"
  mv "$scratch/prometheus" "$folder"
fi
echo "$folder/usr/bin"
