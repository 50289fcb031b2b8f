#!/bin/sh
# Puts the state of a mesh-node (or mesh-control) back from a backup. Run as the daemon's own user, with the
# daemon stopped: node-restore.sh BACKUP.tar
#
#   STATE_DIRECTORY     state_directory of its configuration. No mount point: a folder in it
#   IDENTITY_DIRECTORY  identity.directory, where that lies outside of it. An identity that is there is kept
#   RESTORE_EVIDENCE    continue: the log goes on where the backup ends. Only if the daemon has not run since
#                       aside:    the backup's is kept for reading, and the daemon begins a new log
#                       keep:     the log that is there goes on, whatever the backup has
#                       Needed where no log is there, or another state of it; else it is kept
#   RESTORE_SHA256      what the archive's SHA-256 must be, if it was written down elsewhere; else the file
#                       beside it says it
#
# Refused: an archive that was altered, that holds anything but files and folders, or that is of another
# daemon; a state that a daemon has open; to continue a log that is older than the one that is there, for that
# would sign a second history, which is what others take for fraud.
#
# Of a state that is there, what only ever moves on is kept: the board's memory, a control plane's tokens, the
# budgets, the identity. The rest is put aside as <directory>.before-<UTC time>. Interrupted, it leaves what was
# there.
set -eu
umask 077

die() {
    echo "node-restore: $*" >&2
    exit 1
}

[ $# -eq 1 ] || die "expected one backup: node-restore.sh BACKUP.tar"
archive=$1
state=${STATE_DIRECTORY:?node-restore: say where to: STATE_DIRECTORY}
state=${state%/}
identity=${IDENTITY_DIRECTORY:-}
identity=${identity%/}
evidence=${RESTORE_EVIDENCE:-}
case $evidence in
    '' | continue | aside | keep) ;;
    *) die "RESTORE_EVIDENCE: expected continue, aside or keep" ;;
esac
for program in flock sha256sum tar; do
    command -v "$program" >/dev/null || die "$program cannot be run"
done
tar --version 2>/dev/null | grep -q GNU || die "GNU tar is needed"
[ -f "$archive" ] || die "expected a file: $archive"

expected=${RESTORE_SHA256:-}
if [ -z "$expected" ]; then
    [ -f "$archive.sha256" ] || die "expected its SHA-256 beside it: $archive.sha256"
    expected=$(cut -c 1-64 "$archive.sha256")
fi
[ "$(sha256sum "$archive" | cut -c 1-64)" = "$expected" ] ||
    die "$archive is not what was saved: its SHA-256 differs"

parent=$(dirname "$state")
mkdir -p "$parent" || die "$parent cannot be made"
occupied=
if [ -d "$state" ]; then
    [ "$(stat -c %d "$state")" = "$(stat -c %d "$parent")" ] ||
        die "$state is a mount point: have state_directory name a folder in it"
    if [ -n "$(ls -A "$state")" ]; then occupied=1; fi
elif [ -e "$state" ]; then
    die "$state is no directory"
fi
# Held until the end, so that no daemon starts meanwhile.
if [ -f "$state/evidence/decisions/lock" ]; then
    exec 8<"$state/evidence/decisions/lock"
    flock -n 8 || die "a daemon has $state open: stop it first"
fi

making=$(mktemp -d "$parent/.restoring.XXXXXX") || die "$parent cannot be written to"
trap 'rm -rf "$making" ${identity:+"$identity.restoring"}' EXIT
trap 'exit 1' HUP INT TERM

# Files and folders below the archive's own root, and nothing else.
tar -tvf "$archive" >"$making/listing" 2>/dev/null || die "$archive cannot be read as a tar file"
if grep -qv '^[-d]' "$making/listing"; then die "$archive holds something else than files and folders"; fi
tar -tf "$archive" >"$making/names" 2>/dev/null
if grep -qvE '^\./' "$making/names" || grep -qE '(^|/)\.\.(/|$)|[\\]' "$making/names"; then
    die "$archive holds names that lead out of it"
fi
mkdir "$making/new"
tar -xf "$archive" -C "$making/new" --no-same-owner --no-same-permissions 2>/dev/null ||
    die "$archive cannot be unpacked"
for needed in BACKUP MANIFEST.sha256; do
    [ -f "$making/new/$needed" ] || die "$archive is no backup of a daemon: it has no $needed"
    mv "$making/new/$needed" "$making/$needed"
done
[ "$(head -n 1 "$making/BACKUP")" = "format 1" ] || die "$archive has a format that is not known here"
made=$(sed -n 's/^made //p' "$making/BACKUP")
(cd "$making/new" && sha256sum -c "$making/MANIFEST.sha256") >/dev/null 2>&1 ||
    die "$archive was altered: a file is not what MANIFEST.sha256 says"
(cd "$making/new" && find . ! -type d | LC_ALL=C sort) >"$making/found"
cut -c 67- "$making/MANIFEST.sha256" | LC_ALL=C sort >"$making/stated"
cmp -s "$making/found" "$making/stated" || die "$archive was altered: its files are not those of MANIFEST.sha256"

signed() { # line NUMBER of the checkpoint of log NAME below DIRECTORY; nothing if there is none
    sed -n "$1p" "$3/evidence/$2/checkpoint" 2>/dev/null || true
}
same=1 newer=
for log in decisions actions; do
    mine=$(signed 1 $log "$state") theirs=$(signed 1 $log "$making/new")
    if [ -n "$mine" ] && [ -n "$theirs" ] && [ "$mine" != "$theirs" ]; then
        die "$archive is of $theirs, and $state of $mine"
    fi
    here=$(signed 2 $log "$state") there=$(signed 2 $log "$making/new")
    here=${here:-0} there=${there:-0}
    case $here$there in *[!0-9]*) die "evidence/$log/checkpoint does not say a size" ;; esac
    if [ "$here" -gt "$there" ]; then
        newer="the log of $log here has signed for $here entries, the backup's for $there"
    elif [ "$here" -lt "$there" ]; then
        same=
    elif [ "$(signed 3 $log "$state")" != "$(signed 3 $log "$making/new")" ]; then
        newer="the log of $log here and the backup's have signed for different entries"
    fi
done
if [ -z "$evidence" ] && [ -n "$newer" ]; then
    die "$newer: a second history. RESTORE_EVIDENCE=keep restores the rest"
elif [ -z "$evidence" ]; then
    [ -n "$same" ] && [ -d "$state/evidence" ] ||
        die "RESTORE_EVIDENCE: say continue if this daemon has not run since $made, else aside"
    evidence=keep
fi

keep() { # what is there, in place of what the backup has
    rm -rf "${making:?}/new/$1"
    mkdir -p "$(dirname "$making/new/$1")"
    cp -R "$state/$1" "$making/new/$1"
}
case $evidence in
    continue) [ -z "$newer" ] || die "$newer: a second history" ;;
    aside) mv "$making/new/evidence" "$making/new/evidence-until-$made" ;;
    keep)
        [ -d "$state/evidence" ] || die "RESTORE_EVIDENCE=keep: $state has no evidence"
        keep evidence
        ;;
esac
if [ -n "$occupied" ]; then
    for moving in board pending tokens.sqlite retrieval/budgets.sqlite; do
        if [ -e "$state/$moving" ]; then
            rm -rf "${making:?}/new/$moving"* # with SQLite's own files beside it
            for each in "$state/$moving"*; do keep "${each#"$state"/}"; done
        fi
    done
fi
if [ -n "$identity" ] && [ -f "$identity/svid.key" ]; then
    case $identity/ in "$state"/*) keep "${identity#"$state"/}" ;; esac
    rm -rf "$making/new/identity-apart"
fi
if [ -d "$making/new/identity-apart" ]; then
    [ -n "$identity" ] || die "IDENTITY_DIRECTORY: say where to: the backup has an identity of its own"
    case $identity/ in "$state"/*) die "IDENTITY_DIRECTORY: it lay outside of the state directory" ;; esac
    [ ! -e "$identity" ] || rmdir "$identity" 2>/dev/null || die "$identity is not empty and has no svid.key"
    mkdir -p "$(dirname "$identity")"
    rm -rf "$identity.restoring"
    mv "$making/new/identity-apart" "$identity.restoring"
fi
sync

trap '' HUP INT TERM # renames that belong together
aside=
if [ -n "$occupied" ]; then
    aside=$state.before-$(date -u +%Y%m%dT%H%M%SZ)
    [ ! -e "$aside" ] || die "$aside is there already"
    mv "$state" "$aside"
elif [ -d "$state" ]; then
    rmdir "$state"
fi
if ! mv "$making/new" "$state"; then
    if [ -n "$aside" ]; then mv "$aside" "$state"; fi
    die "$state cannot be put in place; what was there still is"
fi
if [ -n "$identity" ] && [ -d "$identity.restoring" ]; then mv "$identity.restoring" "$identity"; fi
if [ -n "$aside" ]; then
    echo "node-restore: $state is as of $made, evidence: $evidence; what was there is in $aside"
else
    echo "node-restore: $state is as of $made, evidence: $evidence"
fi
