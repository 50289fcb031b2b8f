#!/bin/sh
# Sees to it that this node has an identity that holds: the one on its volume, or a new one for a join token.
# Environment: NODE_PREFIX, POD_NAME (NAME-ORDINAL), DATA_DIR, TRUST_DIR (bundle.json, or root.pem of the authority),
# TOKEN_DIR (a file for each node), ENROLMENT, TRUST_DOMAIN, WAIT_SECONDS.
set -eu
umask 077

scripts=$(dirname "$0")
node="$NODE_PREFIX-${POD_NAME##*-}"
identity="$DATA_DIR/identity"
new="$DATA_DIR/identity.new"
scratch=${TMPDIR:-/tmp}
sh "$scripts/private-volume.sh"

# Enrolled, and ended before the identity was put in place: its token is used up. The certificate was written last.
if [ -f "$new/svid.pem" ] && python "$scripts/certificate-holds.py" "$new/svid.pem"; then
  rm -rf "$identity"
  mv "$new" "$identity"
fi

if [ -f "$identity/svid.pem" ]; then
  if python "$scripts/certificate-holds.py" "$identity/svid.pem"; then
    echo "$node is enrolled"
    exit 0
  fi
  echo "the certificate of $node has run out: it needs a new join token"
fi

if [ -f "$TRUST_DIR/bundle.json" ]; then
  cp "$TRUST_DIR/bundle.json" "$scratch/bundle.json"
else
  python "$scripts/trust-bundle.py" "$TRUST_DIR/root.pem" "$TRUST_DOMAIN" "$scratch/bundle.json"
fi

deadline=$(($(date +%s) + WAIT_SECONDS))
while [ ! -s "$TOKEN_DIR/$node" ]; do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    echo "there is no join token for $node" >&2
    exit 1
  fi
  sleep 2
done

while :; do
  rm -rf "$new"
  MESHCTL_JOIN_TOKEN=$(cat "$TOKEN_DIR/$node")
  export MESHCTL_JOIN_TOKEN
  failed=0
  meshctl node enroll --control "$ENROLMENT" --trust-bundle "$scratch/bundle.json" --out "$new" 2> "$scratch/enrol.err" || failed=$?
  [ "$failed" != 0 ] || break
  cat "$scratch/enrol.err" >&2
  # Whatever else is wrong does not pass by itself.
  if ! grep -q -e UNREACHABLE -e STORE_UNAVAILABLE -e RATE_LIMITED "$scratch/enrol.err" || [ "$(date +%s)" -ge "$deadline" ]; then
    exit "$failed"
  fi
  sleep 3
done
rm -rf "$identity"
mv "$new" "$identity"
