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
ls -1t "$BACKUP_DIR"/etcd-*.db | tail -n "+$((KEEP + 1))" | while read -r old; do
  rm -f "$old" "$old.sha256"
done
ls -l "$kept"
