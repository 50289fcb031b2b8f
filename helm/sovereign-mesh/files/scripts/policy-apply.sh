#!/bin/sh
# Puts the policies of the release in force. The flows that open and close are in this pod's log.
# Environment: POLICY, and what admin.sh needs.
set -eu
# shellcheck source=admin.sh
. "$(dirname "$0")/admin.sh"
meshctl policy apply "$POLICY" --yes
