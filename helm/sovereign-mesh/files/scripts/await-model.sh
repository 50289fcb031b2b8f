#!/bin/sh
# Waits until the model is in the volume. The Job that fetches it puts the folder under its name when it is whole.
# Environment: MODEL_DIR, FETCHED ("yes" where a Job fetches it).
set -eu
said=0
until [ -d "$MODEL_DIR" ] && [ -n "$(ls -A "$MODEL_DIR")" ]; do
  if [ "$FETCHED" != yes ]; then
    echo "there is no model in $MODEL_DIR: see model.folder" >&2
    exit 1
  fi
  [ $((said % 30)) != 0 ] || echo "waiting for the model in $MODEL_DIR"
  said=$((said + 1))
  sleep 2
done
