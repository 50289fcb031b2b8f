"""Mutual TLS for gRPC: who may connect, who we believe to have reached, and with which settings.

Serving trusts the roots of all accepted trust domains, each of them held to its own names by critical
name constraints. Dialling trusts the roots of the one trust domain that the target belongs to, and
checks the target's DNS name, so that no other authority can stand in for it.

What was learnt of grpcio 1.85.1 (BoringSSL), and is held by tests/integration/test_tls_*.py:

- TLS 1.3 only has no setting in Python; tls13.py has the way round.
- X25519MLKEM768 is offered and chosen by default (key share 0x11EC).
- The certificate fetcher of a dynamic server credential is called before every handshake, on a thread
  of gRPC's, and also with grpc.aio. A changed configuration makes a new TLS context, so sessions from
  before it cannot be resumed; calls on open connections go on.
- Channel credentials cannot be changed afterwards, and equal channels share connections across the
  process. Hence a subchannel pool of each channel's own, and new channels after a renewal (dial).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity import tls13
from mesh.identity.leaf import chain_to_pem
from mesh.identity.source import SvidSource

Option = tuple[str, int | str]

# 1 MiB of request, and room for what surrounds it.
MAX_MESSAGE_BYTES = 1024 * 1024 + 64 * 1024

_MESSAGE_LIMITS: tuple[Option, ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

SERVER_OPTIONS: tuple[Option, ...] = (
    *_MESSAGE_LIMITS,
    # Two servers on one port would share its connections at random.
    ("grpc.so_reuseport", 0),
    # Per connection. Far above what one caller needs, far below what would exhaust a node.
    ("grpc.max_concurrent_streams", 1024),
    # A peer that vanished is noticed within half a minute, and one that pings too often is cut off.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 2),
    # Nothing asked for ten minutes: the caller may connect again.
    ("grpc.max_connection_idle_ms", 600_000),
    # Whoever connects and does not complete the handshake holds a socket this long (default: 2 min).
    ("grpc.server_handshake_timeout_ms", 10_000),
)


def channel_options(dns_name: str) -> list[Option]:
    """Options for a channel to the server whose certificate names `dns_name`."""
    return [
        *_MESSAGE_LIMITS,
        ("grpc.ssl_target_name_override", dns_name),
        # Own connections for own credentials: see the top of this module.
        ("grpc.use_local_subchannel_pool", 1),
        # An HTTP proxy from the environment would learn whom we talk to.
        ("grpc.enable_http_proxy", 0),
        # Where a call may be tried again is for placement to say (I1), not for DNS.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.http2.ping_timeout_ms", 3_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def server_credentials(source: SvidSource) -> grpc.ServerCredentials:
    """Serves as the source's SVID and requires a client certificate under any accepted root.

    Renewals, new roots and dropped roots hold from the next handshake on.
    """
    return _dynamic_credentials(source, require_client=True)


def enrolment_server_credentials(source: SvidSource) -> grpc.ServerCredentials:
    """Serves as the source's SVID to callers who have no certificate yet: for Enrolment.Enroll only."""
    return _dynamic_credentials(source, require_client=False)


def channel_credentials(source: SvidSource, trust_domain: str) -> grpc.ChannelCredentials:
    """For dialling a server of this trust domain, as the source's current SVID.

    IDENTITY_UNTRUSTED if no bundle of that trust domain is accepted.
    """
    bundle = source.bundles.get(trust_domain)
    if bundle is None:
        raise MeshError(Reason.IDENTITY_UNTRUSTED, f"no trust bundle is known for {trust_domain}")
    require_tls13()
    svid = source.svid
    return grpc.ssl_channel_credentials(_roots_pem([bundle]), svid.key_pem, svid.chain_pem)


def enrolment_channel_credentials(bundle: TrustBundle) -> grpc.ChannelCredentials:
    """For dialling a control plane of the bundle's trust domain without a certificate of our own."""
    require_tls13()
    return grpc.ssl_channel_credentials(_roots_pem([bundle]))


def dial(
    source: SvidSource, address: str, trust_domain: str, dns_name: str, extra_options: Sequence[Option] = ()
) -> grpc.aio.Channel:
    """A channel to the server at `address` ("host:port") that must prove to be `dns_name`.

    It keeps the SVID of this moment for every later connection: dial again after a renewal.
    """
    # Of two values for one option gRPC takes the first, so there must be one.
    options = list(dict([*channel_options(dns_name), *extra_options]).items())
    return grpc.aio.secure_channel(address, channel_credentials(source, trust_domain), options)


def _dynamic_credentials(source: SvidSource, *, require_client: bool) -> grpc.ServerCredentials:
    require_tls13()
    fetch = _Fetcher(source)
    # grpc's annotation leaves out that None, no change, may be answered; its documentation does not.
    fetcher: Any = fetch
    return grpc.dynamic_ssl_server_credentials(fetch.current(), fetcher, require_client)


def require_tls13() -> None:
    """Raises CONFIG_INVALID where gRPC in this process would also speak TLS 1.2: see tls13.py."""
    if not tls13.IN_FORCE:
        raise MeshError(
            Reason.CONFIG_INVALID,
            "grpc was imported before mesh, which leaves TLS 1.2 on: import mesh first,"
            f" or set {tls13.VARIABLE}={tls13.SUITES} in the environment",
        )


class _Fetcher:
    """Answers gRPC's question, before each handshake, whether anything changed since the last."""

    def __init__(self, source: SvidSource) -> None:
        self._source = source
        self._served = 0

    def current(self) -> grpc.ServerCertificateConfiguration:
        self._served = self._source.version
        svid = self._source.svid
        roots = _roots_pem(self._source.bundles.values())
        return grpc.ssl_server_certificate_configuration([(svid.key_pem, svid.chain_pem)], roots)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        return None if self._served == self._source.version else self.current()


def _roots_pem(bundles: Iterable[TrustBundle]) -> bytes:
    return chain_to_pem(tuple(root for bundle in bundles for root in bundle.roots))
