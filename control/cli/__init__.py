"""meshctl: one file a noun. main.py puts them together and turns every error into one line."""

import os

# Before gRPC starts: its own log goes to standard error, where meshctl promises one line and no more.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
