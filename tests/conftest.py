"""Before any test module imports grpc: see mesh/identity/tls13.py."""

import mesh  # noqa: F401
