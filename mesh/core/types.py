"""The nouns of the mesh, as immutable values.

They are what policy, placement and evidence speak of. They know nothing of protobuf (mesh/codec.py
translates), of X.509 or of any network. A value that exists is well formed: constructors validate,
and raise `MeshError` with a stable reason (I4: what is malformed denies).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import require_country

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"[a-z0-9]([a-z0-9./-]{0,126}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ASSURANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")

MAX_DATA_CLASSES = 16
MAX_JURISDICTIONS = 64
MAX_ASSURANCES = 32


class DataClass(StrEnum):
    """What kind of data a request carries."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PERSONAL = "personal"
    SPECIAL_CATEGORY = "special-category"


# W3C Data Privacy Vocabulary 2 (https://w3id.org/dpv): IRIs accepted as synonyms.
DPV_SYNONYMS: Mapping[str, DataClass] = {
    "https://w3id.org/dpv#ConfidentialData": DataClass.CONFIDENTIAL,
    "https://w3id.org/dpv#PersonalData": DataClass.PERSONAL,
    "https://w3id.org/dpv#SpecialCategoryPersonalData": DataClass.SPECIAL_CATEGORY,
    "dpv:ConfidentialData": DataClass.CONFIDENTIAL,
    "dpv:PersonalData": DataClass.PERSONAL,
    "dpv:SpecialCategoryPersonalData": DataClass.SPECIAL_CATEGORY,
}

# GDPR Art. 9(1): special categories are categories *of personal data*, so whatever is said of
# personal data holds for them too.
IMPLIED_CLASSES: Mapping[DataClass, frozenset[DataClass]] = {
    DataClass.SPECIAL_CATEGORY: frozenset({DataClass.PERSONAL}),
}


class Action(StrEnum):
    """The kinds of flow that policies speak of."""

    INFER = "infer"
    EMBED = "embed"
    SEARCH = "search"
    RELEASE = "release"
    TRANSIT = "transit"
    EGRESS = "egress"


class Task(StrEnum):
    """What a model is for."""

    GENERATE = "generate"
    EMBED = "embed"


TASK_OF: Mapping[Action, Task] = {Action.INFER: Task.GENERATE, Action.EMBED: Task.EMBED}


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE id, such as ``spiffe://de.mesh.example/node/fra-1``.

    The trust domain's first label is the authority's jurisdiction in lower case
    (DESIGN: one authority per jurisdiction and mesh).
    """

    trust_domain: str
    path: str

    def __post_init__(self) -> None:
        labels = self.trust_domain.split(".")
        if len(self.trust_domain) > 200 or not all(_LABEL.fullmatch(x) for x in labels):
            raise MeshError(Reason.IDENTITY_MALFORMED, "the trust domain is not a lower-case DNS name")
        parts = self.path.split("/")
        if parts[0] != "" or not 2 <= len(parts) <= 5 or not all(_LABEL.fullmatch(x) for x in parts[1:]):
            raise MeshError(
                Reason.IDENTITY_MALFORMED,
                'a SPIFFE path is "/" and one to four segments of lower-case letters, digits and "-"',
            )

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Reads ``spiffe://<trust domain>/<path>``; raises IDENTITY_MALFORMED."""
        if len(text) > 512 or not text.startswith("spiffe://"):
            raise MeshError(Reason.IDENTITY_MALFORMED, "expected spiffe://<trust domain>/<path>")
        trust_domain, slash, path = text[len("spiffe://") :].partition("/")
        return cls(trust_domain, slash + path)

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"

    @property
    def kind(self) -> str:
        """The path's first segment: "node", "client", "admin", "control" or "authority"."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The path's last segment."""
        return self.path.rsplit("/", 1)[1]

    @property
    def tenant(self) -> str:
        """The tenant of a client id: ``/client/<tenant>[/<name>]``; empty for others."""
        parts = self.path.split("/")
        return parts[2] if parts[1] == "client" and len(parts) > 2 else ""


def jurisdiction_of(trust_domain: str) -> str:
    """The country of an authority: its trust domain's first label, upper case; I4 if unassigned."""
    return require_country(trust_domain.split(".", 1)[0].upper())


def node_id(trust_domain: str, name: str) -> SpiffeId:
    """The SPIFFE id of the node of this name."""
    return SpiffeId(trust_domain, f"/node/{name}")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The caller's own restriction: it can only take away (I3)."""

    allowed_jurisdictions: frozenset[str] = frozenset()
    required_assurances: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.allowed_jurisdictions) > MAX_JURISDICTIONS:
            raise MeshError(Reason.CONTEXT_INVALID, f"at most {MAX_JURISDICTIONS} allowed jurisdictions")
        if len(self.required_assurances) > MAX_ASSURANCES:
            raise MeshError(Reason.CONTEXT_INVALID, f"at most {MAX_ASSURANCES} required assurances")
        for code in self.allowed_jurisdictions:
            require_country(code)
        _check_assurances(self.required_assurances)


@dataclass(frozen=True)
class RequestContext:
    """What a request says about itself: metadata only (I2)."""

    data_classes: frozenset[DataClass]
    purpose: str
    transfer_basis: str = ""
    tenant: str = ""
    narrowing: Narrowing = field(default_factory=Narrowing)

    def __post_init__(self) -> None:
        if not self.data_classes:
            raise MeshError(Reason.DATA_CLASS_MISSING, "name at least one data class")
        if not _TOKEN.fullmatch(self.purpose):
            raise MeshError(
                Reason.CONTEXT_INVALID,
                'purpose: expected 1 to 128 of a-z, 0-9, "-", "." and "/", such as care/triage',
            )
        if self.transfer_basis and not _TOKEN.fullmatch(self.transfer_basis):
            raise MeshError(Reason.CONTEXT_INVALID, "transfer basis: expected a word such as adequacy or scc")
        if self.tenant and not _LABEL.fullmatch(self.tenant):
            raise MeshError(Reason.CONTEXT_INVALID, 'tenant: expected 1 to 63 of a-z, 0-9 and "-"')

    @classmethod
    def of(
        cls,
        data_classes: Iterable[str],
        purpose: str,
        *,
        transfer_basis: str = "",
        tenant: str = "",
        allowed_jurisdictions: Iterable[str] = (),
        required_assurances: Iterable[str] = (),
    ) -> RequestContext:
        """Builds a context from plain strings, as callers and the wire have them."""
        names = list(data_classes)
        if len(names) > MAX_DATA_CLASSES:
            raise MeshError(Reason.CONTEXT_INVALID, f"at most {MAX_DATA_CLASSES} data classes")
        return cls(
            frozenset(parse_data_class(name) for name in names),
            purpose,
            transfer_basis,
            tenant,
            Narrowing(frozenset(allowed_jurisdictions), frozenset(required_assurances)),
        )

    @cached_property
    def judged_classes(self) -> tuple[DataClass, ...]:
        """Every class that must be permitted: the named ones and those they imply, sorted."""
        return with_implied(self.data_classes)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over the canonical form: JSON with sorted keys and sorted lists."""
        canonical = {
            "data_classes": sorted(self.data_classes),
            "purpose": self.purpose,
            "transfer_basis": self.transfer_basis,
            "tenant": self.tenant,
            "allowed_jurisdictions": sorted(self.narrowing.allowed_jurisdictions),
            "required_assurances": sorted(self.narrowing.required_assurances),
        }
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(b"sovereign-mesh/v1/context\x00" + text.encode()).digest()


def with_implied(classes: frozenset[DataClass]) -> tuple[DataClass, ...]:
    """The classes and those they imply, sorted."""
    return tuple(sorted(classes.union(*(IMPLIED_CLASSES.get(c, frozenset()) for c in classes))))


def parse_data_class(text: str) -> DataClass:
    """Reads a data class or one of its DPV synonyms; raises DATA_CLASS_UNKNOWN (I4)."""
    if text in DPV_SYNONYMS:
        return DPV_SYNONYMS[text]
    try:
        return DataClass(text)
    except ValueError:
        known = ", ".join(DataClass)
        raise MeshError(Reason.DATA_CLASS_UNKNOWN, f"expected one of {known}, or its DPV IRI") from None


def _check_assurances(assurances: Iterable[str]) -> None:
    for assurance in assurances:
        if not _ASSURANCE.fullmatch(assurance):
            raise MeshError(
                Reason.CONTEXT_INVALID, 'assurance: expected 1 to 64 of A-Z, a-z, 0-9, ".", "_", "+" and "-"'
            )


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as its verified certificate names it."""

    id: SpiffeId

    @property
    def jurisdiction(self) -> str:
        """The country of the caller's home authority."""
        return jurisdiction_of(self.id.trust_domain)

    @property
    def tenant(self) -> str:
        """Whom it acts for."""
        return self.id.tenant


@dataclass(frozen=True)
class NodeFacts:
    """What an authority states about one of its nodes; policies judge these and nothing else.

    Location, domicile, control and access are four separate facts: a machine in Berlin may belong
    to somebody whom another country can compel.
    """

    location: str
    operator_domicile: str
    controller: str
    admin_access: frozenset[str]
    assurances: frozenset[str] = frozenset()
    cordoned: bool = False
    dns_name: str = ""

    def __post_init__(self) -> None:
        for code in (self.location, self.operator_domicile, self.controller, *self.admin_access):
            require_country(code)
        if not 1 <= len(self.admin_access) <= 32:
            raise MeshError(Reason.RECORD_MALFORMED, "admin access: name 1 to 32 countries")
        if len(self.assurances) > MAX_ASSURANCES:
            raise MeshError(Reason.RECORD_MALFORMED, f"at most {MAX_ASSURANCES} assurances")
        _check_assurances(self.assurances)

    @cached_property
    def attributes(self) -> tuple[object, ...]:
        """What policies can see, hashable: nodes that agree in it are judged alike."""
        return (
            self.location,
            self.operator_domicile,
            self.controller,
            tuple(sorted(self.admin_access)),
            tuple(sorted(self.assurances)),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a node serves. `digest` is "sha256:<hex>" over its files."""

    name: str
    digest: str
    context_tokens: int
    tasks: frozenset[Task]

    def __post_init__(self) -> None:
        # A foreign node states it, and people are shown it: it must not be able to drive their terminal.
        if not 1 <= len(self.name) <= 128 or not self.name.isprintable():
            raise MeshError(Reason.RECORD_MALFORMED, "a model's name has 1 to 128 printable characters")
        if not self.digest.isprintable():
            raise MeshError(Reason.RECORD_MALFORMED, "model digest: expected sha256:<hex>")


@dataclass(frozen=True, slots=True)
class HeldCollection:
    """A collection that a node holds documents of, and the digest of the settings they are indexed by."""

    name: str
    digest: str

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.name) or not _DIGEST.fullmatch(self.digest):
            raise MeshError(Reason.RECORD_MALFORMED, "a held collection: expected a name and sha256:<hex>")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node states about itself: how to reach it and what it serves.

    `log_key` and `witness_key` are the Ed25519 public keys (32 bytes, or none) by which it signs its own
    log's checkpoints and cosigns others'.
    """

    endpoints: tuple[str, ...]
    models: tuple[Model, ...]
    collections: tuple[HeldCollection, ...] = ()
    software_version: str = ""
    log_key: bytes = b""
    witness_key: bytes = b""

    def serves(self, name: str, task: Task | None) -> Model | None:
        """The model of this name (any, if empty) that can do the task, or None."""
        for model in self.models:
            if (not name or model.name == name) and (task is None or task in model.tasks):
                return model
        return None

    def holds(self, collection: str) -> HeldCollection | None:
        """The collection of this name, if it holds documents of it."""
        return next((held for held in self.collections if held.name == collection), None)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's load, as it last said; `reported_at` is Unix time in seconds.

    `running` are all calls under way, of any kind and waiting or not. `facts_generation` is that of its
    authority's facts by which the node decided when it said so: a node that goes by facts that cordon it
    refuses whatever comes, so that its `running` only falls from then on.
    """

    ready: bool
    in_flight: int
    queued: int
    capacity: int
    draining: bool = False
    reported_at: float = 0.0
    running: int = 0
    facts_generation: int = 0

    @property
    def load(self) -> float:
        """Requests in hand per request that can be served at once."""
        return (self.in_flight + self.queued) / max(1, self.capacity)
