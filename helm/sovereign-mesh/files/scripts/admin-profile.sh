#!/bin/sh
# Writes an administrator's profile as a tar to standard output, and keeps nothing of it. In the control plane's pod:
# admin-profile.sh NAME CONTROL ENROLMENT, the last two host:port as the administrator reaches them.
set -eu
umask 077
if [ $# -ne 3 ]; then
  echo "expected a name, host:port of the control plane and host:port of enrolment" >&2
  exit 2
fi
authority=${AUTHORITY_DIR:-/run/authority/ca}
# In memory, as the authority's own files are.
made=$(mktemp -d "$(dirname "$authority")/profile.XXXXXX")
trap 'rm -rf "$made"' EXIT
meshctl authority admin "$authority" "$1" --out "$made/profile" --control "$2" --enrolment "$3" >&2
tar -C "$made/profile" -czf - .
