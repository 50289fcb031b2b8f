#!/bin/sh
# Fetches the model into the volume, unless it is there already with this digest. Nothing of another digest stays.
# Environment: MODEL_FROM, MODEL_DIR, MODEL_DIGEST, OPTIONS, and the credentials that mesh-model takes.
set -eu
umask 022
mkdir -p "$(dirname "$MODEL_DIR")"
# OPTIONS are several words.
# shellcheck disable=SC2086
exec mesh-model fetch --from "$MODEL_FROM" --to "$MODEL_DIR" --digest "$MODEL_DIGEST" $OPTIONS
