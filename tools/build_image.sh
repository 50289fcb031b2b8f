#!/usr/bin/env bash
# Builds one image of the Dockerfile, reproducibly: tools/build_image.sh cpu|gpu|control [what docker buildx build takes].
# The time of its files is that of the last commit, unless SOURCE_DATE_EPOCH says another. VERSION is the label's.
# DEBIAN_ARCHIVE is the address of Debian's archive by date: without it Debian's packages are those of the day.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  cpu | gpu | control) target=$1 ;;
  *)
    sed -n '2s/^# //p' "$0" >&2
    exit 2
    ;;
esac
shift
# Attestations bear the time of the build; they are there when asked for, and never change the image itself.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1
exec docker buildx build --file Dockerfile --target "$target" --platform linux/amd64 \
  --build-arg SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --pretty=%ct)}" \
  ${DEBIAN_ARCHIVE:+--build-arg DEBIAN_ARCHIVE="$DEBIAN_ARCHIVE"} \
  --build-arg VERSION="${VERSION:-0.0.0}" --build-arg REVISION="$(git rev-parse HEAD)" "$@" .
