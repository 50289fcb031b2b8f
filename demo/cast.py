"""Who and what the story is about: contexts, prompts, nodes, and how to look at what a node did."""

from __future__ import annotations

from demo.world import NODE_NAMES, World
from mesh.core.types import RequestContext

TRIAGE = RequestContext.of(["special-category"], "care/triage")
BILLING = RequestContext.of(["personal"], "care/billing")
DRAFT = RequestContext.of(["confidential"], "contracts/drafting")
LEAFLET = RequestContext.of(["public"], "marketing/leaflet")
# A word that stands in no text of ours: where it is found, a prompt has been.
CANARY = "Zwickelfaltenbeutel"
PATIENT = f"Patient {CANARY}, 61, chest pain since this morning. What first?"
WITHIN_A_SECOND = 1.0

DE, FR, US = (NODE_NAMES[country] for country in ("DE", "FR", "US"))


def id_of(world: World, name: str) -> str:
    """SPIFFE id of a node."""
    return str(world.nodes[name].id)


def engine_calls(world: World, name: str, caller: str = "") -> int:
    """How many requests a node has let through to its engine, by its own decision log."""
    entries = world.nodes[name].decisions()
    return sum(
        1
        for e in entries
        if e.get("kind") == "serve" and e.get("outcome") == "served" and caller in str(e.get("caller", ""))
    )
