"""A node: the gateway in front of one owner's engine and, later, index."""

import mesh  # noqa: F401 - before grpc, see there
