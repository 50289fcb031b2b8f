#!/bin/sh
# Accepts the bundles of other authorities: TRUST_DIR holds DOMAIN.json and DOMAIN.fingerprint for each.
# Environment: TRUST_DIR, and what admin.sh needs.
set -eu
# shellcheck source=admin.sh
. "$(dirname "$0")/admin.sh"
for bundle in "$TRUST_DIR"/*.json; do
  meshctl trust import "$bundle" --fingerprint "$(cat "${bundle%.json}.fingerprint")"
done
