"""Shapes that values of the chart share, by the names that comments in values.yaml use.

JSON Schema (draft 7), which Helm checks values with. Kubernetes' own types are free-form objects here: the
API server knows them better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STRING = {"type": "string"}
_NAME = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"}
_NEEDED_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_CIDR = {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}
_ENDPOINT = {"type": "string", "pattern": "^([^\\s/]+:[0-9]{1,5})?$"}
_COUNTRY = {"type": "string", "pattern": "^([A-Z]{2})?$"}
_FINGERPRINT = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "name": _NAME,
    "names": {"type": "array", "items": _NEEDED_NAME, "uniqueItems": True},
    "strings": {"type": "array", "items": _STRING},
    "labels": {"type": "object", "additionalProperties": _STRING},
    "object": {"type": "object", "additionalProperties": True},
    "objects": {"type": "array", "items": {"type": "object"}},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "quantity": {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"},
    "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
    "cidrs": {"type": "array", "items": _CIDR},
    "ports": {"type": "array", "items": _PORT, "minItems": 1},
    "endpoint": _ENDPOINT,
    "endpoints": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[^\\s/]+:[0-9]{1,5}$"},
        "maxItems": 9,
    },
    "country": _COUNTRY,
    "countries": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}$"}},
    "destinations": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["cidr", "ports"],
            "properties": {
                "cidr": _CIDR,
                "except": {"type": "array", "items": _CIDR},
                "ports": {"type": "array", "items": _PORT, "minItems": 1},
            },
        },
    },
    "trustBundles": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["trustDomain", "bundle", "fingerprint"],
            "properties": {
                "trustDomain": {"type": "string", "pattern": "^[a-z]{2}\\.[a-z0-9.-]+$"},
                "bundle": {"type": "string", "minLength": 2},
                "fingerprint": _FINGERPRINT,
            },
        },
    },
}
