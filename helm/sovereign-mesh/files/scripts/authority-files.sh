#!/bin/sh
# Puts the authority's directory together in memory, readable by its owner alone, from the mounted Secret:
# either what `meshctl authority init` made, or a root of cert-manager's that is adopted.
# Environment: SECRET_DIR, AUTHORITY_DIR, TRUST_DOMAIN.
set -eu
umask 077

parent=$(dirname "$AUTHORITY_DIR")
rm -rf "$AUTHORITY_DIR" "$parent/new"
mkdir -p "$parent/new"

if [ -f "$SECRET_DIR/root.key" ]; then
  for name in root.key root.pem authority.key authority.pem; do
    if [ ! -f "$SECRET_DIR/$name" ]; then
      echo "the authority's Secret has no key $name" >&2
      exit 1
    fi
    cat "$SECRET_DIR/$name" > "$parent/new/$name"
  done
  mv "$parent/new" "$AUTHORITY_DIR"
elif [ -f "$SECRET_DIR/tls.key" ]; then
  meshctl authority adopt "$parent/new" --trust-domain "$TRUST_DOMAIN" \
    --ca-certificate "$SECRET_DIR/tls.crt" --ca-key "$SECRET_DIR/tls.key" > /dev/null
  mv "$parent/new/ca" "$AUTHORITY_DIR"
  rm -rf "$parent/new"
else
  echo "the authority's Secret has neither root.key nor tls.key" >&2
  exit 1
fi
echo "the authority's directory is ready"
