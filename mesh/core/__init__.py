"""The pure core: everything that decides, as functions of their arguments.

Nothing here imports asyncio, grpc, ray, etcd, protobuf, time or random; time, ids and snapshots
are arguments. `tests/architecture` holds this.
"""
