#!/bin/sh
# Saves a snapshot of etcd, checks it, keeps the newest few. Run: etcd-backup.sh
#
#   BACKUP_DIRECTORY   where snapshots are kept; made with mode 0700
#   BACKUP_KEEP        how many (7)
#   ETCD_ENDPOINTS     https://HOST:PORT, one or more with commas; the first that answers is asked
#                      (http://127.0.0.1:2379). The host must be in etcd's certificate
#   ETCD_CA            file: the CA of etcd's certificate
#   ETCD_CERTIFICATE   files: the certificate and key that are shown to etcd
#   ETCD_KEY
#   ETCD_USER          etcd's own users, where it has some; the user needs the role root
#   ETCD_PASSWORD_FILE file with the password
#   ETCDCTL, ETCDUTL   the programs (etcdctl, etcdutl on PATH); their release should be that of the server
#
# Makes etcd-<UTC time>-r<revision>.db with its SHA-256 beside it. A snapshot appears whole or not at all.
# Secrets go to etcdctl by its environment, never by its arguments.
set -eu
umask 077

die() {
    echo "etcd-backup: $*" >&2
    exit 1
}

directory=${BACKUP_DIRECTORY:?etcd-backup: say where to: BACKUP_DIRECTORY}
keep=${BACKUP_KEEP:-7}
etcdctl=${ETCDCTL:-etcdctl}
etcdutl=${ETCDUTL:-etcdutl}
case $keep in '' | *[!0-9]* | 0) die "BACKUP_KEEP: expected a number from 1" ;; esac
for program in "$etcdctl" "$etcdutl" sha256sum; do
    command -v "$program" >/dev/null || die "$program cannot be run"
done

mkdir -p "$directory" || die "$directory cannot be made"
making=$(mktemp -d "$directory/.making.XXXXXX") || die "$directory cannot be written to"
trap 'rm -rf "$making"' EXIT
trap 'exit 1' HUP INT TERM

# etcdctl takes every setting from its environment; what is set otherwise must not get in the way.
for name in $(env | sed -n 's/^\(ETCDCTL_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
export ETCDCTL_API=3
if [ -n "${ETCD_CA:-}" ]; then export ETCDCTL_CACERT="$ETCD_CA"; fi
if [ -n "${ETCD_CERTIFICATE:-}" ]; then
    export ETCDCTL_CERT="$ETCD_CERTIFICATE" ETCDCTL_KEY="${ETCD_KEY:?etcd-backup: ETCD_CERTIFICATE needs ETCD_KEY}"
fi
if [ -n "${ETCD_USER:-}" ]; then
    password=$(cat "${ETCD_PASSWORD_FILE:?etcd-backup: ETCD_USER needs ETCD_PASSWORD_FILE}") ||
        die "ETCD_PASSWORD_FILE cannot be read"
    export ETCDCTL_USER="$ETCD_USER:$password"
fi

saved=
for endpoint in $(printf %s "${ETCD_ENDPOINTS:-http://127.0.0.1:2379}" | tr ',' ' '); do
    # Saving has no time limit of its own: who does not answer at all is passed over.
    if ETCDCTL_ENDPOINTS=$endpoint "$etcdctl" endpoint health >"$making/log" 2>&1 &&
        ETCDCTL_ENDPOINTS=$endpoint "$etcdctl" snapshot save "$making/snapshot.db" >"$making/log" 2>&1; then
        saved=$endpoint
        break
    fi
done
if [ -z "$saved" ]; then
    why=$(sed -n 's/.*is unhealthy: //p' "$making/log" | tail -n 1)
    die "no snapshot was made: ${why:-$(tail -n 1 "$making/log")}"
fi

# Reads the file and its own hash: what cannot be restored is no backup.
"$etcdutl" snapshot status "$making/snapshot.db" --write-out json >"$making/status" 2>"$making/log" ||
    die "the snapshot cannot be read: $(tail -n 1 "$making/log")"
revision=$(sed -n 's/.*"revision":\([0-9]*\).*/\1/p' "$making/status")
[ -n "$revision" ] || die "the snapshot does not say its revision"

name=etcd-$(date -u +%Y%m%dT%H%M%SZ)-r$revision.db
[ ! -e "$directory/$name" ] || die "$name is there already"
mv "$making/snapshot.db" "$making/$name"
(cd "$making" && sha256sum "$name" >"$name.sha256")
sync
# The sum first: a snapshot is never there without it.
mv "$making/$name.sha256" "$directory/$name.sha256"
mv "$making/$name" "$directory/$name"

# Names begin with the time, so that the oldest come first.
count=$(find "$directory" -maxdepth 1 -name 'etcd-*.db' | wc -l)
find "$directory" -maxdepth 1 -name 'etcd-*.db' | sort | while read -r old; do
    [ "$count" -gt "$keep" ] || break
    rm -f "$old" "$old.sha256"
    count=$((count - 1))
done
echo "$directory/$name"
