#!/bin/sh
# Makes the certificates of a release that are not there yet, each as a Secret PREFIX-NAME (ca.crt, tls.crt, tls.key).
# Environment: PREFIX, ALGORITHM, DAYS, SERVERS (NAME=DNS,DNS ...), CLIENTS (NAME or NAME=DNS ...), CA_DIR (the Secret
# PREFIX-ca, mounted where it is there), INSTANCE (the release), WORK_DIR (in memory).
set -eu
umask 077

exists() {
  found=0
  python -m control.kubernetes_secret "$PREFIX-$1" --exists || found=$?
  case $found in
    0) return 0 ;;
    4) return 1 ;;
    *) exit 1 ;;
  esac
}

rm -rf "${WORK_DIR:?}"/*
set -- --out "$WORK_DIR" --algorithm "$ALGORITHM" --days "$DAYS"
missing=""
if exists ca; then
  # A pod that was started before the Secret was there does not see it; the Job's next one does.
  if [ ! -f "$CA_DIR/tls.key" ]; then
    echo "$PREFIX-ca exists and is not mounted" >&2
    exit 1
  fi
  set -- "$@" --ca "$CA_DIR"
else
  missing="ca"
fi
for server in $SERVERS; do
  if ! exists "${server%%=*}"; then
    missing="$missing ${server%%=*}"
    set -- "$@" --server "$server"
  fi
done
for client in $CLIENTS; do
  if ! exists "${client%%=*}"; then
    missing="$missing ${client%%=*}"
    set -- "$@" --client "$client"
  fi
done
if [ -z "$missing" ]; then
  echo "all certificates are there"
  exit 0
fi

python "$(dirname "$0")/certificates.py" "$@"
for name in $missing; do
  python -m control.kubernetes_secret "$PREFIX-$name" --label app.kubernetes.io/part-of=sovereign-mesh --label "app.kubernetes.io/instance=$INSTANCE" \
    --from-file "ca.crt=$WORK_DIR/$name/ca.crt" --from-file "tls.crt=$WORK_DIR/$name/tls.crt" \
    --from-file "tls.key=$WORK_DIR/$name/tls.key"
done
rm -rf "${WORK_DIR:?}"/*
