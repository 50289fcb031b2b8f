"""What every part of the mesh shares: the pure core, and the shells around it.

Importing it rules out TLS below 1.3 (mesh/identity/tls13.py), so it comes before grpc.
"""

from mesh.identity import tls13 as _tls13  # noqa: F401 - for what it does on import
