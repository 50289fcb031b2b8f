#!/bin/sh
# To be sourced: names this pod an administrator, for a day at most and in memory alone, and waits until the
# control plane answers and reaches the board.
# Environment: AUTHORITY_DIR, ADMIN_DIR, ADMIN_NAME, CONTROL, ENROLMENT, WAIT_SECONDS.
umask 077
rm -rf "$ADMIN_DIR"
meshctl authority admin "$AUTHORITY_DIR" "$ADMIN_NAME" --out "$ADMIN_DIR" --control "$CONTROL" \
  --enrolment "$ENROLMENT" > /dev/null
export MESHCTL_PROFILE="$ADMIN_DIR"

deadline=$(($(date +%s) + WAIT_SECONDS))
until meshctl status --output json 2> "${TMPDIR:-/tmp}/status.err" | grep -q '"board_connected": *true'; do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    echo "the control plane does not answer, or does not reach the board:" >&2
    cat "${TMPDIR:-/tmp}/status.err" >&2
    exit 1
  fi
  sleep 2
done
