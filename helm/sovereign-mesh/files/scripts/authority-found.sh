#!/bin/sh
# Founds the authority, once: its keys are made here, in memory, and kept as a Secret.
# Environment: SECRET_NAME, TRUST_DOMAIN, INSTANCE (the release), WORK_DIR (in memory).
set -eu
umask 077

found=0
python -m control.kubernetes_secret "$SECRET_NAME" --exists || found=$?
case $found in
  0) echo "the authority is there already"; exit 0 ;;
  4) ;;
  *) exit 1 ;;
esac

rm -rf "$WORK_DIR/authority"
meshctl authority init "$WORK_DIR/authority" --trust-domain "$TRUST_DOMAIN"
set -- --label app.kubernetes.io/part-of=sovereign-mesh --label "app.kubernetes.io/instance=$INSTANCE"
for name in root.key root.pem authority.key authority.pem; do
  set -- "$@" --from-file "$name=$WORK_DIR/authority/ca/$name"
done
python -m control.kubernetes_secret "$SECRET_NAME" --if-absent "$@" --from-file "bundle.json=$WORK_DIR/authority/bundle.json"
rm -rf "$WORK_DIR/authority"
