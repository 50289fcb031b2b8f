#!/bin/sh
# Saves the state of a stopped mesh-node (or mesh-control) in one tar file, keeps the newest few.
# Run as the daemon's own user: node-backup.sh
#
#   STATE_DIRECTORY     state_directory of its configuration
#   IDENTITY_DIRECTORY  identity.directory, where that lies outside of it
#   BACKUP_DIRECTORY    where backups are kept; made with mode 0700
#   BACKUP_KEEP         how many (7)
#
# In it: evidence with its keys, the indexes with their secret, the board's memory, the identity; of a control
# plane its records, tokens and logs. Not in it: what can be made again (engine/, retrieval/embedder/,
# retrieval/inbox/), and an authority's directory (ca/), which belongs elsewhere. Whoever can read it can be
# this node, until its certificate ends, and has its documents: encrypt it on its way out of here.
#
# Makes <log's name>-<UTC time>.tar with its SHA-256 beside it; MANIFEST.sha256 in it has one for each file. It
# holds the log's lock meanwhile: a daemon that runs is refused, and one cannot start. Needs GNU tar and flock.
set -eu
umask 077

die() {
    echo "node-backup: $*" >&2
    exit 1
}

state=${STATE_DIRECTORY:?node-backup: say what: STATE_DIRECTORY}
state=${state%/}
identity=${IDENTITY_DIRECTORY:-}
directory=${BACKUP_DIRECTORY:?node-backup: say where to: BACKUP_DIRECTORY}
keep=${BACKUP_KEEP:-7}
case $keep in '' | *[!0-9]* | 0) die "BACKUP_KEEP: expected a number from 1" ;; esac
for program in flock sha256sum tar xargs; do
    command -v "$program" >/dev/null || die "$program cannot be run"
done
tar --version 2>/dev/null | grep -q GNU || die "GNU tar is needed"
[ -d "$state" ] || die "expected a directory: $state"
[ -z "$identity" ] || [ -d "$identity" ] || die "expected a directory: $identity"
[ -f "$state/evidence/decisions/lock" ] || die "$state has no evidence/decisions: is it a daemon's state_directory?"

exec 8<"$state/evidence/decisions/lock"
flock -n 8 || die "a daemon has $state open: stop it first"
if [ -f "$state/evidence/actions/lock" ]; then
    exec 9<"$state/evidence/actions/lock"
    flock -n 9 || die "a daemon has $state open: stop it first"
fi

mkdir -p "$directory" || die "$directory cannot be made"
making=$(mktemp -d "$directory/.making.XXXXXX") || die "$directory cannot be written to"
trap 'rm -rf "$making"' EXIT
trap 'exit 1' HUP INT TERM

below() { # what is to be kept below the current directory: of type f, or d
    find . \( -path ./engine -o -path ./retrieval/embedder -o -path ./retrieval/inbox \) -prune -o \
        -type "$1" -print | LC_ALL=C sort
}
# Folders first, then files, whose sums are made from the same list.
(cd "$state" && below d >"$making/folders" && below f >"$making/files")
apart=
if [ -n "$identity" ]; then
    case $(cd "$identity" && pwd -P)/ in
        "$(cd "$state" && pwd -P)"/*) ;;
        *)
            mkdir "$making/identity-apart"
            cp -R "$identity/." "$making/identity-apart/"
            # node-restore.sh refuses them, and would find out too late.
            [ -z "$(find "$making/identity-apart" ! -type f ! -type d)" ] ||
                die "$identity holds something else than files and folders"
            apart=./identity-apart
            ;;
    esac
fi
cat "$making/folders" "$making/files" >"$making/list"
# tar and sha256sum read a backslash, and lists a line break, in a way of their own.
if grep -qv '^\.' "$making/list" || grep -q '[\]' "$making/list"; then
    die "$state has a file whose name is no plain one"
fi
for taken in ./identity-apart ./BACKUP ./MANIFEST.sha256; do
    if grep -qxF "$taken" "$making/list"; then die "$state has a $taken of its own"; fi
done

sums() { # of the files named on standard input
    tr '\n' '\0' | xargs -0 sha256sum
}
(cd "$state" && sums) <"$making/files" >"$making/MANIFEST.sha256" || die "a file in $state cannot be read"
if [ -n "$apart" ]; then
    (cd "$making" && find "$apart" -type f | sums >>MANIFEST.sha256) || die "a file in $identity cannot be read"
fi

# A checkpoint is a signed note: the log's name, its size, its root.
name=state
if [ -f "$state/evidence/decisions/checkpoint" ]; then
    name=$(head -n 1 "$state/evidence/decisions/checkpoint" | tr '/' '_')
fi
case $name in '' | *[!A-Za-z0-9._-]*) die "evidence/decisions/checkpoint does not name a log" ;; esac
made=$(date -u +%Y%m%dT%H%M%SZ)
printf 'format 1\nmade %s\n' "$made" >"$making/BACKUP"

file=$name-$made.tar
[ ! -e "$directory/$file" ] || die "$file is there already"
tar -cf "$making/$file" -C "$making" ./BACKUP ./MANIFEST.sha256 ${apart:+"$apart"} \
    -C "$state" --no-recursion -T "$making/list" || die "the archive cannot be written"
(cd "$making" && sha256sum "$file" >"$file.sha256")
sync
# The sum first: an archive is never there without it.
mv "$making/$file.sha256" "$directory/$file.sha256"
mv "$making/$file" "$directory/$file"

# Names end with the time, so that the oldest of this log come first. Of this log alone: fra-1 is not fra-1-b.
digits8='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]'
mine="$name-${digits8}T[0-9][0-9][0-9][0-9][0-9][0-9]Z.tar"
count=$(find "$directory" -maxdepth 1 -name "$mine" | wc -l)
find "$directory" -maxdepth 1 -name "$mine" | LC_ALL=C sort | while read -r old; do
    [ "$count" -gt "$keep" ] || break
    rm -f "$old" "$old.sha256"
    count=$((count - 1))
done
echo "$directory/$file"
