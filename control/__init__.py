"""The control plane of one authority: its CA, its signed records, and meshctl. It sees no payload (I6)."""

import mesh  # noqa: F401 - before grpc, see there
