#!/bin/sh
# Makes the data directory of one etcd member from a snapshot. Run: etcd-restore.sh SNAPSHOT.db
#
#   ETCD_DATA_DIRECTORY  where to; must not be there, or be empty. No mount point: a folder in it
#   RESTORE_REPLACE      1: what is there is put aside as <directory>.before-<UTC time>
#   ETCDUTL              the program (etcdutl on PATH)
#
# For one member of a cluster these as well; run it for every member, with the same snapshot and token:
#
#   ETCD_NAME                         this member (default)
#   ETCD_INITIAL_CLUSTER              every member: NAME=PEER-URL,... (itself alone)
#   ETCD_INITIAL_ADVERTISE_PEER_URLS  this member's own peer URL (http://localhost:2380)
#   ETCD_INITIAL_CLUSTER_TOKEN        one word, new for each restore, so that members of the old cluster
#                                     cannot be taken for members of this one (restored-<revision>)
#
# Every member has to be stopped. Start them with the same names and URLs. Refuses a snapshot that is not
# what its SHA-256 beside it says. Interrupted, it leaves what was there.
set -eu
umask 077

die() {
    echo "etcd-restore: $*" >&2
    exit 1
}

[ $# -eq 1 ] || die "expected one snapshot: etcd-restore.sh SNAPSHOT.db"
snapshot=$1
target=${ETCD_DATA_DIRECTORY:?etcd-restore: say where to: ETCD_DATA_DIRECTORY}
target=${target%/}
etcdutl=${ETCDUTL:-etcdutl}
name=${ETCD_NAME:-default}
peer=${ETCD_INITIAL_ADVERTISE_PEER_URLS:-http://localhost:2380}
cluster=${ETCD_INITIAL_CLUSTER:-$name=$peer}
for program in "$etcdutl" flock sha256sum; do
    command -v "$program" >/dev/null || die "$program cannot be run"
done
[ -f "$snapshot" ] || die "expected a file: $snapshot"
[ -f "$snapshot.sha256" ] || die "expected its SHA-256 beside it: $snapshot.sha256"

expected=$(cut -c 1-64 "$snapshot.sha256")
found=$(sha256sum "$snapshot" | cut -c 1-64)
[ "$expected" = "$found" ] || die "$snapshot is not what was saved: its SHA-256 differs"

parent=$(dirname "$target")
mkdir -p "$parent" || die "$parent cannot be made"
occupied=
if [ -d "$target" ]; then
    [ "$(stat -c %d "$target")" = "$(stat -c %d "$parent")" ] ||
        die "$target is a mount point: name a folder in it, as etcd's --data-dir does"
    if [ -n "$(ls -A "$target")" ]; then occupied=1; fi
elif [ -e "$target" ]; then
    die "$target is no directory"
fi
if [ -n "$occupied" ]; then
    [ "${RESTORE_REPLACE:-}" = 1 ] || die "$target is not empty; with RESTORE_REPLACE=1 it is put aside"
    if [ -f "$target/member/snap/db" ]; then
        exec 9<"$target/member/snap/db"
        flock -n 9 || die "an etcd has $target open: stop it first"
    fi
fi

making=$(mktemp -d "$parent/.restoring.XXXXXX") || die "$parent cannot be written to"
trap 'rm -rf "$making"' EXIT
trap 'exit 1' HUP INT TERM
"$etcdutl" snapshot status "$snapshot" --write-out json >"$making/status" 2>"$making/log" ||
    die "the snapshot cannot be read: $(tail -n 1 "$making/log")"
revision=$(sed -n 's/.*"revision":\([0-9]*\).*/\1/p' "$making/status")
token=${ETCD_INITIAL_CLUSTER_TOKEN:-restored-$revision}
"$etcdutl" snapshot restore "$snapshot" --data-dir "$making/data" --name "$name" --initial-cluster "$cluster" \
    --initial-cluster-token "$token" --initial-advertise-peer-urls "$peer" >"$making/log" 2>&1 ||
    die "the snapshot cannot be restored: $(tail -n 1 "$making/log")"
sync

trap '' HUP INT TERM # two renames that belong together
aside=
if [ -n "$occupied" ]; then
    aside=$target.before-$(date -u +%Y%m%dT%H%M%SZ)
    [ ! -e "$aside" ] || die "$aside is there already"
    mv "$target" "$aside"
elif [ -d "$target" ]; then
    rmdir "$target"
fi
if ! mv "$making/data" "$target"; then
    if [ -n "$aside" ]; then mv "$aside" "$target"; fi
    die "$target cannot be put in place; what was there still is"
fi
if [ -n "$aside" ]; then
    echo "etcd-restore: $name has revision $revision in $target; what was there is in $aside"
else
    echo "etcd-restore: $name has revision $revision in $target"
fi
