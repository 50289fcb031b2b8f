"""Every figure of docs/benchmarks.md: ratios and percentiles, interleaved. No test asserts one."""

import mesh  # noqa: F401  before grpc, which reads its TLS settings once: mesh/identity/tls13.py
