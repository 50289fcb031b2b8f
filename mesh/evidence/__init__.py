"""The decision log: where every decision leaves its evidence, or does not happen (I7).

`DecisionLog` is what those who decide write to, `EvidenceLog` what those who prove read from. `MerkleLog`
keeps both on disk, `MemoryDecisionLog` is its twin. The log does not know what decisions mean;
mesh/core/placement.py makes them, and mesh/evidence/entries.py says what is kept of them.
"""

from mesh.evidence.base import DecisionLog, Entry, EvidenceLog, SignedCheckpoint, Signer
from mesh.evidence.configured import open_log
from mesh.evidence.entries import MAX_LOGGED_REFUSALS, context_entry, decision_entry
from mesh.evidence.log import MerkleLog
from mesh.evidence.memory import MemoryDecisionLog

__all__ = [
    "DecisionLog",
    "Entry",
    "EvidenceLog",
    "MAX_LOGGED_REFUSALS",
    "MemoryDecisionLog",
    "MerkleLog",
    "SignedCheckpoint",
    "Signer",
    "context_entry",
    "decision_entry",
    "open_log",
]
