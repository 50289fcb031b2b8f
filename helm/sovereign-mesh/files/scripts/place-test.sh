#!/bin/sh
# `helm test`: every node says that it is ready, then a request is placed and sent as a client.
# Environment: READY (URLs of /readyz), NODES (name=host:port, of the authority's own nodes), PROFILE_TGZ (a client's
# profile; empty: one is issued), MODEL, DATA_CLASS, PURPOSE, WORK_DIR (in memory), and what admin.sh needs.
set -eu
umask 077
scripts=$(dirname "$0")

for url in $READY; do
  python "$scripts/is-ready.py" "$url"
done

if [ -n "$PROFILE_TGZ" ]; then
  mkdir -p "$WORK_DIR/client"
  tar -xzf "$PROFILE_TGZ" -C "$WORK_DIR/client"
  # The directory itself, or one in it.
  profile=$(dirname "$(find "$WORK_DIR/client" -name profile.yaml | head -n 1)")
  [ -f "$profile/profile.yaml" ] || { echo "$PROFILE_TGZ holds no profile" >&2; exit 1; }
elif [ -n "${CONTROL:-}" ]; then
  # shellcheck source=admin.sh
  . "$scripts/admin.sh"
  rm -rf "$WORK_DIR/client"
  meshctl client issue "helm-test-$(date +%s)" --tenant helm-test --ttl 600 --out "$WORK_DIR/client" > /dev/null
  profile="$WORK_DIR/client"
else
  echo "no client's profile: see test.profileSecretName"
  exit 0
fi
# NODES are several words.
# shellcheck disable=SC2086
python "$scripts/profile-nodes.py" "$profile/profile.yaml" $NODES

export MESHCTL_PROFILE="$profile"
meshctl place --class "$DATA_CLASS" --purpose "$PURPOSE" --model "$MODEL" --explain
meshctl chat --class "$DATA_CLASS" --purpose "$PURPOSE" --model "$MODEL" --max-tokens 8 "Good morning"
