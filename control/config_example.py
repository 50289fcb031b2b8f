"""The commented configuration of `mesh-control` that `meshctl authority init` writes.

examples/config/mesh-control.yaml is this text; a test keeps the two the same and valid.
"""

from __future__ import annotations

from string import Template

_TEXT = Template("""\
# mesh-control: the control plane of one authority ($trust_domain).
# Run it with: mesh-control --config mesh-control.yaml
# Relative paths are taken from this file's folder. An unknown or contradictory setting is an error
# that names it. What is commented out shows the default.

# Its name in the mesh: spiffe://$trust_domain/control/main, DNS main.control.$trust_domain.
name: main

# Root key and record-signing key, made by `meshctl authority init`. Mode 0700, and backed up:
# whoever reads it is the authority.
authority_directory: ca

# Verified records, hashed join tokens, the log of administrators' actions. Never the authority_directory.
state_directory: state

# Admin, Placement and renewal, mutual TLS. One to eight addresses.
listen:
  - $listen

# Where machines without a certificate bring a join token. Only the server proves itself here.
enrolment:
  listen:
    - $enrolment
  # Enrolments per minute; more are refused with a hint when to try again.
  # per_minute: 60

# etcd, where signed records are exchanged. It is not trusted: it can delay records, never forge one.
board:
  endpoints:
    - $board
  # TLS with client certificates: etcd's CA, and our certificate and key for it.
  # ca: etcd/ca.pem
  # certificate: etcd/client.pem
  # key: etcd/client.key
  # The name in etcd's certificate, where it differs from the address.
  # server_name: etcd
  # For clusters with users on top. Rather than here: SOVEREIGN_MESH_BOARD_PASSWORD.
  # user: mesh-control
  # password: ...

# Every interval the authority signs which of its records are current. Nodes stop using its records
# across borders once its last word is older than max_age: at least three intervals.
# heads:
#   interval_s: 5
#   max_age_s: 60

# How long certificates hold, at most 24 hours; they are renewed at half of it.
# certificates:
#   ttl_hours: 24

# Published at the first start, if no policy is in force yet. Without a policy nothing is permitted.
# bootstrap:
#   policy: policy.cedar

# How long the permits hold that it signs when it places requests. They must outlive the way to the node.
# placement:
#   permit_ttl_s: 60

# log:
#   level: info      # debug, info, warning, error
#   format: auto     # auto: text on a terminal, else json

# telemetry:
#   Metrics (/metrics) and health (/livez, /readyz) over plain HTTP, without payload and without
#   tenants' names. Left out: not served.
#   listen: 127.0.0.1:9464
#   Spans for an OpenTelemetry collector, OTLP over gRPC. Left out: none are made.
#   traces:
#     endpoint: otel-collector:4317
#     ca: otel/ca.pem
#     Of requests without a trace from a caller of the own authority; 0 to 1.
#     sample_ratio: 0.1
""")


def example_config(
    trust_domain: str,
    *,
    listen: str = "0.0.0.0:7443",
    enrolment: str = "0.0.0.0:7444",
    board: str = "127.0.0.1:2379",
) -> str:
    """The configuration as YAML."""
    return _TEXT.substitute(trust_domain=trust_domain, listen=listen, enrolment=enrolment, board=board)
