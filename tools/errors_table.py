"""Writes docs/errors.md from mesh/core/errors.py: every reason, where it maps to, and what to do.

`python -m tools.errors_table` writes the file; tests/architecture/test_docs.py fails where it is not what
this would write, and where a reason has no words here. Statuses and exit codes come from the code; the
words are below.
"""

from __future__ import annotations

from pathlib import Path

from control.cli.output import exit_code_of
from mesh.core.errors import ERROR_DOMAIN, MeshError, Reason

FILE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"

_INTRODUCTION = f"""# Errors

Made by `tools/errors_table.py` from `mesh/core/errors.py`; change it there.

Every refusal and failure has one stable code. Over gRPC it travels as `google.rpc.Status` with an
`ErrorInfo` (domain `{ERROR_DOMAIN}`, the code as its reason) and, where waiting helps, a `RetryInfo`.
In the SDK it is `MeshError.reason`. `meshctl` prints `CODE: message` in one line on standard error, or as
JSON with `--output json`.

Exit codes of `meshctl`: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy or by an authority's word,
130 interrupted. `mesh-node` and `mesh-control`: 0 ended as told, 1 ended by themselves, 2 the configuration
does not hold.

The HTTP status is for gateways that translate; the mesh itself speaks gRPC.
"""

_SECTIONS: dict[str, dict[Reason, tuple[str, str]]] = {
    "The caller's words": {
        Reason.CONTEXT_INVALID: (
            "A part of the request context is malformed.",
            "The message names the part and what it expects.",
        ),
        Reason.DATA_CLASS_MISSING: ("The request names no data class.", "Name at least one."),
        Reason.DATA_CLASS_UNKNOWN: (
            "A data class that does not exist.",
            "Use `public`, `internal`, `confidential`, `personal`, `special-category` or its DPV IRI.",
        ),
        Reason.COUNTRY_UNKNOWN: (
            "Not an assigned ISO 3166-1 alpha-2 code.",
            "Two upper-case letters, such as `DE`; the United Kingdom is `GB`.",
        ),
        Reason.REQUEST_INVALID: ("A field is out of its bounds.", "The message names the field."),
        Reason.REQUEST_TOO_LARGE: ("More than the stated limit.", "Send less; the limits are in `protos/`."),
        Reason.MODEL_UNKNOWN: ("No node is known to serve a model of this name.", "See `meshctl models`."),
        Reason.TENANT_MISMATCH: (
            "The context names another tenant than the caller's certificate.",
            "Leave the tenant out, or use the right identity.",
        ),
        Reason.NOT_FOUND: ("What was named is not there.", "Check the name."),
    },
    "Identity": {
        Reason.IDENTITY_MALFORMED: ("Not a name of the mesh.", "Compare with the form in the message."),
        Reason.IDENTITY_UNTRUSTED: (
            "The certificate is not of an authority that is accepted for this name.",
            "Compare fingerprints with `meshctl trust list`; the other side may have to import the bundle.",
        ),
        Reason.IDENTITY_EXPIRED: (
            "The certificate has run out, or is not valid yet by the other clock.",
            "Renew it or have a new one issued; compare the clocks.",
        ),
        Reason.IDENTITY_REVOKED: ("The caller's own authority has cut it off.", "Ask that authority."),
        Reason.IDENTITY_NOT_ALLOWED: (
            "This kind of identity may not do that.",
            "Use the kind that the message expects.",
        ),
        Reason.JOIN_TOKEN_INVALID: (
            "The join token is unknown, used or expired.",
            "Make a new one with `meshctl node token`.",
        ),
        Reason.CSR_INVALID: ("The certificate signing request does not hold.", "A P-256 key, and a new one."),
        Reason.BUNDLE_INVALID: (
            "The trust bundle is malformed, not constrained to its names, or older than the accepted one.",
            "Get the bundle anew from its authority.",
        ),
    },
    "Records": {
        Reason.RECORD_MALFORMED: (
            "A signed record cannot be read.",
            "Look at who wrote it; nothing has changed.",
        ),
        Reason.RECORD_TOO_LARGE: (
            "A signed record is over its limit.",
            "Publish less; nothing has changed.",
        ),
        Reason.RECORD_WRONG_KEY: (
            "A record lies under another key than the one it was signed for.",
            "Somebody moved it on the board; nothing has changed.",
        ),
        Reason.RECORD_WRONG_SIGNER: (
            "The signer may not sign this key.",
            "Somebody may be trying; nothing has changed.",
        ),
        Reason.RECORD_SIGNATURE_INVALID: (
            "The signature does not hold.",
            "Somebody may be trying; nothing has changed.",
        ),
        Reason.RECORD_EXPIRED: (
            "The record's validity is over.",
            "Its authority must sign it anew: is its control plane running?",
        ),
        Reason.RECORD_NOT_YET_VALID: (
            "The record is from the future, by more than 30 seconds.",
            "Compare the clocks.",
        ),
        Reason.RECORD_ROLLED_BACK: (
            "An older generation than one that was seen.",
            "The board was set back or lies; the newer one stays in force.",
        ),
        Reason.STORE_UNAVAILABLE: (
            "The board or a local store does not answer or cannot be written.",
            "Nothing was changed. Look at etcd and at the disk, then try again.",
        ),
        Reason.STORE_CONFLICT: ("Somebody else changed it first.", "Look at what is there, then try again."),
        Reason.ENTRY_MALFORMED: (
            "An entry of a decision log cannot be read.",
            "The message says what was expected; `meshctl audit` counts such entries and goes on.",
        ),
    },
    "Policies": {
        Reason.POLICY_MALFORMED: (
            "The policies do not parse, do not fit the schema, or break a rule of ours.",
            "The message names the line or the policy. Nothing has changed.",
        ),
        Reason.POLICY_TOO_LARGE: (
            "The policy set is over 128 KiB.",
            "Shorten it.",
        ),
        Reason.GROUPS_MALFORMED: ("Jurisdiction groups cannot be read.", "The message names the entry."),
        Reason.POLICY_UNDECIDED: (
            "`meshctl policy prove` or `meshctl policy diff` cannot look at every case.",
            "The message says why. Name actions, classes, purposes or nodes to ask about less.",
        ),
        Reason.POLICY_NOT_PROVED: (
            "`meshctl policy prove` found a flow that should not be.",
            "The output names the flow and the policies that permit it.",
        ),
    },
    "Why a node is refused": {
        Reason.POLICY_SENDER_DENIES: (
            "The sender's authority does not let it out.",
            "The detail names the policy, or says that none permits it.",
        ),
        Reason.POLICY_RECEIVER_DENIES: (
            "The receiver's authority does not let it in.",
            "The detail names the policy, or says that none permits it.",
        ),
        Reason.POLICY_MISSING: (
            "One of the two authorities has no policy in force.",
            "`meshctl policy apply`, by that authority.",
        ),
        Reason.RECORDS_STALE: (
            "The request would cross a border, and an authority's word is too old.",
            "Look at etcd, at that authority's control plane, and at the clocks: `meshctl status`.",
        ),
        Reason.NARROWED_JURISDICTION: (
            "The caller allows only other countries.",
            "Intended, or widen the caller's own narrowing.",
        ),
        Reason.NARROWED_ASSURANCE: (
            "The node lacks an assurance that the caller asks for.",
            "Intended, or ask for less.",
        ),
        Reason.MODEL_NOT_SERVED: ("This node does not serve the model.", "See `meshctl node describe`."),
        Reason.NODE_NOT_READY: (
            "The node's engine is not ready, or nothing was heard of it lately.",
            "Look at its log; it comes back by itself.",
        ),
        Reason.NODE_CORDONED: ("Its authority gives it nothing new.", "`meshctl node uncordon`."),
        Reason.NODE_EXCLUDED: ("The caller left it out, as it does after a failure.", "Nothing to do."),
        Reason.NODE_UNKNOWN: (
            "As far as the receiving node knows, its own authority states nothing about it.",
            "Can it reach the board? See `meshctl node describe`.",
        ),
        Reason.PLACER_NOT_ENTITLED: (
            "Whoever placed speaks neither for the sender nor for the receiver.",
            "Ask a node or control plane of the own authority.",
        ),
        Reason.NOT_PERMITTED: (
            "No node may take the request.",
            "`meshctl place --explain` shows the reason for each.",
        ),
        Reason.NO_NODE_AVAILABLE: (
            "Some node may, but none can now.",
            "Try again; `meshctl place --explain` shows why.",
        ),
    },
    "Permits": {
        Reason.PERMIT_MISSING: ("The request came without a permit.", "Place first; the SDK does."),
        Reason.PERMIT_MALFORMED: ("The permit cannot be read or verified.", "Place anew."),
        Reason.PERMIT_EXPIRED: ("The permit's minute is over.", "Place anew; compare the clocks."),
        Reason.PERMIT_NOT_YET_VALID: (
            "The permit is from the future, by more than 30 seconds.",
            "Compare the clocks.",
        ),
        Reason.PERMIT_WRONG_NODE: ("The permit is for another node.", "Send it there, or place anew."),
        Reason.PERMIT_WRONG_CALLER: ("The permit is for another caller.", "Place under the own identity."),
        Reason.PERMIT_WRONG_ACTION: ("The permit is for another action.", "Place for this action."),
        Reason.PERMIT_WRONG_CONTEXT: (
            "The request's context is not the one that was placed.",
            "Send exactly the context that was placed.",
        ),
        Reason.PERMIT_WRONG_MODEL: ("The permit is for another model.", "Place for this model."),
        Reason.PERMIT_WRONG_SIGNER: (
            "Whoever signed the permit may not, or was revoked.",
            "Ask a node or control plane of the own authority.",
        ),
        Reason.PERMIT_REPLAYED: ("The permit was used before.", "Place anew: each is good for one use."),
    },
    "Serving": {
        Reason.OVERLOADED: ("No room, or asked too often.", "Wait as long as the retry hint says."),
        Reason.DRAINING: ("The node is about to stop.", "Another node; the SDK fails over."),
        Reason.ENGINE_UNAVAILABLE: (
            "The engine is starting or being replaced.",
            "Another node, or wait; it heals by itself.",
        ),
        Reason.ENGINE_FAILED: (
            "The engine broke off during the request.",
            "Another node; the SDK fails over.",
        ),
        Reason.PROMPT_TOO_LONG: (
            "Prompt and output do not fit the model's context.",
            "Shorten the prompt or ask for fewer tokens.",
        ),
        Reason.PEER_TOO_SLOW: (
            "The caller did not take what it was sent.",
            "Read faster; `serving.write_timeout_s` is the limit.",
        ),
        Reason.NODE_LOST: (
            "The node is gone or broke the protocol, and no other permitted one could go on.",
            "Try again. The request may have run more than once.",
        ),
        Reason.DEADLINE_EXCEEDED: ("The caller's time was over.", "Allow more time, or ask for less."),
        Reason.EVIDENCE_UNAVAILABLE: (
            "The decision could not be written down, so it was not taken (I7).",
            "Look at that machine's disk.",
        ),
        Reason.CANCELLED: ("The caller went away.", "Nothing to do."),
    },
    "Documents and indexes": {
        Reason.COLLECTION_UNKNOWN: (
            "No collection of this name is published by this authority, or held by this node.",
            "`meshctl collection list`; then `meshctl collection apply` or `meshctl index create`.",
        ),
        Reason.COLLECTION_MISMATCH: (
            "The node's index was made with other settings than the asker's authority publishes, so that"
            " scores would not compare.",
            "The detail names the settings. Agree on them; then the index is deleted, made and filled anew.",
        ),
        Reason.EMBEDDER_MISMATCH: (
            "The node has another embedding model than the collection asks for.",
            "Configure that model on the node, or publish another collection.",
        ),
        Reason.COLLECTION_EXISTS: (
            "The node has an index of this name already.",
            "Use it, or `meshctl index delete` first.",
        ),
        Reason.FILTER_UNKNOWN: ("There is no such field to filter by.", "The message lists the fields."),
        Reason.REFERENCE_UNKNOWN: (
            "There is no such passage here, or none for this caller.",
            "Search again: the document may have been replaced or deleted.",
        ),
        Reason.RELEASE_DENIED: (
            "The policies do not release that much of the passage to this caller.",
            "Ask for a lower level; the policies that decided are named.",
        ),
        Reason.BUDGET_EXHAUSTED: (
            "The caller's budget at this node is used up: searches in a minute, or passages in a day.",
            "Wait as long as the retry hint says, ask for fewer, or ask its operator for more.",
        ),
        Reason.DOCUMENT_UNREADABLE: (
            "The file could not be read as what it says it is.",
            "Look at the file; the others went on.",
        ),
        Reason.DOCUMENT_TOO_LARGE: (
            "The file, or what it unpacks to, is over its limit.",
            "Split it; the limits are in the message.",
        ),
        Reason.DOCUMENT_INVALID: (
            "What is said of the document does not hold: its id, its classes, a date.",
            "The message names the field.",
        ),
        Reason.INDEX_UNAVAILABLE: (
            "The index is being opened or rebuilt, or its store does not answer.",
            "Wait, or look at `meshctl index status`; it can be rebuilt from the node's own store.",
        ),
        Reason.PEER_MISBEHAVED: (
            "A node answered what no honest node can say. Nothing of that answer was used.",
            "Tell its operator; if it goes on, forbid the node.",
        ),
    },
    "Evidence": {
        Reason.PROOF_INVALID: (
            "A Merkle proof, or a tile that proofs are made from, does not hold.",
            "Ask for it again; if it stays so, whoever gave it cannot show what they claim.",
        ),
        Reason.NOTE_INVALID: (
            "A checkpoint, a signed note or a verifier key is malformed, or not signed by whom it should be.",
            "Compare the verifier key with the one that the log's operator published.",
        ),
        Reason.EVIDENCE_DAMAGED: (
            "A log's files are torn, altered, incomplete, or not those that it has signed for. Nothing was"
            " overwritten.",
            "The message names the file. Restore the folder and its key from a backup; or keep both aside as"
            " they are, for whoever looks into it, and start with an empty folder and a new key.",
        ),
        Reason.LOG_FORKED: (
            "A node's log shows two different lists of the same length: it was rewritten.",
            "`meshctl audit alarms` has both checkpoints, signed by that log. Talk to its operator.",
        ),
        Reason.LOG_ROLLED_BACK: (
            "A node's log goes on from less than it had shown: entries were lost or taken out.",
            "`meshctl audit alarms` has both checkpoints. A log restored from an old backup does this, too.",
        ),
        Reason.RECEIPT_INVALID: (
            "A receipt was altered, is not whole, or rests on authorities whose roots were not given.",
            "The message says what was expected. Every authority's bundle has to be given with --trust.",
        ),
        Reason.RECEIPT_UNWITNESSED: (
            "All of a receipt holds, but too few other authorities have cosigned its checkpoint.",
            "Fetch it again in a few seconds, or lower --witnesses and rely on the log's operator.",
        ),
    },
    "Models": {
        Reason.MODEL_DIGEST_MISMATCH: (
            "The model's files are not those that were named by digest: neither installed nor served.",
            "Compare with `mesh-model digest`; correct the files, or `engine.model_digest`.",
        ),
        Reason.MODEL_UNSAFE: (
            "A model to be fetched holds what could run programs or leave its folder.",
            "Take one with safetensors; leave single files out with `--exclude`.",
        ),
        Reason.MODEL_TOO_LARGE: ("More bytes or files than may be fetched.", "Raise `--max-bytes`."),
    },
    "Operation": {
        Reason.CONFIG_INVALID: (
            "A configuration or a local file does not hold.",
            "The message names the setting or the file.",
        ),
        Reason.INTERNAL: (
            "A mistake of ours.",
            "The message has an incident number or a place in the code; report it.",
        ),
        Reason.UNREACHABLE: (
            "Nobody answers at that address.",
            "Is the daemon running, and the address right?",
        ),
    },
}


def words() -> dict[Reason, tuple[str, str]]:
    """Meaning and next step of every reason that has them."""
    return {reason: text for section in _SECTIONS.values() for reason, text in section.items()}


def render() -> str:
    """The whole file."""
    parts = [_INTRODUCTION]
    for title, reasons in _SECTIONS.items():
        parts.append(f"\n## {title}\n\n| code | gRPC | HTTP | exit | what it means | what to do |\n")
        parts.append("| --- | --- | --- | --- | --- | --- |\n")
        for reason, (meaning, next_step) in reasons.items():
            code = exit_code_of(MeshError(reason, ""))
            parts.append(
                f"| `{reason.code}` | {reason.grpc} | {reason.http} | {code} | {meaning} | {next_step} |\n"
            )
    return "".join(parts)


if __name__ == "__main__":
    FILE.write_text(render())
