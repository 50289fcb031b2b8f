#!/bin/sh
# Makes a join token for each node that has none, and keeps each as a Secret of its own.
# Environment: NODES (names), SECRET_PREFIX, FACTS (options of `meshctl node token`), TOKEN_SECONDS, INSTANCE (the
# release), WORK_DIR (in memory), and what admin.sh needs.
set -eu
umask 077

missing=""
for node in $NODES; do
  found=0
  python -m control.kubernetes_secret "$SECRET_PREFIX-$node" --exists || found=$?
  case $found in
    0) echo "$node has a token already" ;;
    4) missing="$missing $node" ;;
    *) exit 1 ;;
  esac
done
[ -n "$missing" ] || exit 0

# shellcheck source=admin.sh
. "$(dirname "$0")/admin.sh"
for node in $missing; do
  # FACTS are several words: country codes and assurances, checked by the chart's schema.
  # shellcheck disable=SC2086
  meshctl node token "$node" $FACTS --ttl "$TOKEN_SECONDS" > "$WORK_DIR/token"
  python -m control.kubernetes_secret "$SECRET_PREFIX-$node" --if-absent --from-file "token=$WORK_DIR/token" \
    --label app.kubernetes.io/part-of=sovereign-mesh --label "app.kubernetes.io/instance=$INSTANCE" --label sovereign-mesh.io/join-token="$node"
  rm -f "$WORK_DIR/token"
done
