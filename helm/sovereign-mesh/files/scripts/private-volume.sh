#!/bin/sh
# A volume plugin that sets a group may have opened private files to it; the daemons refuse those. The volume's own
# directory may stay as the plugin made it.
# Environment: DATA_DIR.
set -eu
umask 077
mkdir -p "$DATA_DIR/state"
find "$DATA_DIR" -mindepth 1 ! -type l ! -name lost+found -perm /077 -user "$(id -u)" -exec chmod go-rwx {} +
