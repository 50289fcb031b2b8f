"""The story that shows the product: three jurisdictions, one mesh, everything real.

`python -m demo` tells it; tests/e2e/test_story.py asserts the very same steps. Nothing in the product
imports this.
"""

import os

# gRPC's own log would write between the lines of the story; daemons write theirs to files.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import mesh  # noqa: F401  before grpc, which reads its TLS settings once: mesh/identity/tls13.py
