"""TLS 1.3 and nothing below it, which gRPC for Python has no setting for.

gRPC's core takes its TLS 1.2 cipher suites from the environment variable GRPC_SSL_CIPHER_SUITES when
grpc is first imported. The suites named here need a server with an RSA key. No SVID has one, so between
members of the mesh there is nothing to agree on below TLS 1.3, neither as server nor as client. What
stays reachable over TLS 1.2 is an etcd with an RSA certificate (board_certificate.py): many versions of
it speak nothing newer. The suites of TLS 1.3 are not affected by the variable. (Naming TLS 1.3 suites
there, or none, makes every credential fail.)

mesh/__init__.py imports this before anything of ours can import grpc. Where a program imports grpc
before mesh, it is too late, and tls.py refuses to make credentials. Imports nothing but os and sys.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
SUITES = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"

# Whether gRPC in this process has, or will, read the setting.
IN_FORCE = "grpc" not in sys.modules or os.environ.get(VARIABLE) == SUITES
if IN_FORCE:
    os.environ[VARIABLE] = SUITES
