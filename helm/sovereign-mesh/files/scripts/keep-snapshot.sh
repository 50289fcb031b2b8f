#!/bin/sh
# Keeps a snapshot of etcd under its date, and no more than KEEP of them.
# Environment: SNAPSHOT, BACKUP_DIR, KEEP.
set -eu
umask 077
kept="$BACKUP_DIR/etcd-$(date -u +%Y%m%dT%H%M%SZ).db"
# The copy gets its name when it is whole.
cp "$SNAPSHOT" "$kept.part"
(cd "$BACKUP_DIR" && sha256sum "$(basename "$kept").part" | sed 's/\.part$//' > "$(basename "$kept").sha256")
sync "$kept.part"
mv "$kept.part" "$kept"
# The names sort by their date.
set -- "$BACKUP_DIR"/etcd-*.db
while [ $# -gt "$KEEP" ]; do
  rm -f "$1" "$1.sha256"
  shift
done
ls -l "$kept"
