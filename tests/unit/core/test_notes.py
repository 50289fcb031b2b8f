"""Signed notes, checkpoints and cosignatures: the examples of C2SP's texts, and what must be refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    Note,
    Signature,
    VerifierKey,
    cosigned_message,
    parse_note,
    sign,
    verify,
)
from mesh.identity.log_keys import LogKey, verify_ed25519

# From tlog-checkpoint and tlog-cosignature.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501
# From the documentation of the Go package "note", whose format this is.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANNS_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""  # noqa: E501

SIGNER, WITNESS = LogKey.generate(), LogKey.generate()
KEY = VerifierKey("de.mesh.example/node/fra-1", ED25519, SIGNER.public)
WITNESS_KEY = VerifierKey("fr.mesh.example/node/par-1", COSIGNATURE, WITNESS.public)
TEXT = Checkpoint(KEY.name, 7, b"r" * 32).text


def refused():
    return pytest.raises(MeshError, check=lambda error: error.reason is Reason.NOTE_INVALID)


def test_the_example_reads_and_writes_back() -> None:
    note = parse_note(EXAMPLE.encode())
    assert bytes(note).decode() == EXAMPLE
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == note.text
    assert [each.name for each in note.signatures] == [checkpoint.origin, "witness.example.com/w1"]
    assert int.from_bytes(note.signatures[1].signature[:8], "big") == 1679315147


def test_a_note_that_others_signed_verifies() -> None:
    key = VerifierKey.parse(NEUMANN)
    assert (key.name, key.kind, key.key_id.hex(), key.vkey) == ("PeterNeumann", ED25519, "c74f20a3", NEUMANN)
    assert verify(parse_note(NEUMANNS_NOTE.encode()), [key], verify_ed25519) == ((key, None),)
    with refused():
        verify(parse_note(NEUMANNS_NOTE.replace("don't", "do").encode()), [key], verify_ed25519)


def test_a_verifier_key_reads_and_writes_back() -> None:
    assert VerifierKey.parse(KEY.vkey) == KEY
    assert VerifierKey.parse(WITNESS_KEY.vkey) == WITNESS_KEY


def test_a_signed_note_verifies_and_an_altered_one_does_not() -> None:
    note = Note(TEXT, (sign(TEXT, KEY, SIGNER.sign), sign(TEXT, WITNESS_KEY, WITNESS.sign, timestamp=99)))
    read = parse_note(bytes(note))
    assert read == note
    assert verify(read, [KEY, WITNESS_KEY], verify_ed25519) == ((KEY, None), (WITNESS_KEY, 99))
    assert verify(read, [WITNESS_KEY], verify_ed25519) == ((WITNESS_KEY, 99),)
    altered = parse_note(bytes(note).replace(b"\n7\n", b"\n8\n"))
    for key in (KEY, WITNESS_KEY):
        with refused():
            verify(altered, [key], verify_ed25519)


def test_a_cosignature_is_of_its_time() -> None:
    line = sign(TEXT, WITNESS_KEY, WITNESS.sign, timestamp=99)
    later = line._replace(signature=(100).to_bytes(8, "big") + line.signature[8:])
    with refused():
        verify(Note(TEXT, (later,)), [WITNESS_KEY], verify_ed25519)
    assert cosigned_message(TEXT, 99).decode() == f"cosignature/v1\ntime 99\n{TEXT}"
    for impossible in (-1, 2**63):
        with refused():
            sign(TEXT, WITNESS_KEY, WITNESS.sign, timestamp=impossible)


def test_unknown_signers_do_not_count() -> None:
    note = Note(TEXT, (sign(TEXT, KEY, SIGNER.sign),))
    with refused():
        verify(note, [WITNESS_KEY], verify_ed25519)
    with refused():
        verify(note, [], verify_ed25519)
    # The same key as a cosigner's is another key, and the same name with another key, too.
    with refused():
        verify(note, [VerifierKey(KEY.name, COSIGNATURE, SIGNER.public)], verify_ed25519)
    with refused():
        verify(note, [VerifierKey(KEY.name, ED25519, WITNESS.public)], verify_ed25519)


def test_one_false_signature_of_a_known_key_spoils_the_note() -> None:
    good, other = sign(TEXT, KEY, SIGNER.sign), sign(TEXT + "more\n", KEY, SIGNER.sign)
    with refused():
        verify(Note(TEXT, (good, other)), [KEY], verify_ed25519)
    with refused():
        verify(Note(TEXT, (good._replace(signature=b"short"),)), [KEY], verify_ed25519)
    assert verify(Note(TEXT, (good, good)), [KEY], verify_ed25519) == ((KEY, None),)
    assert Note(TEXT, (good,)).signed(good, other).signatures == (good, other)


LINE = sign(TEXT, KEY, SIGNER.sign).line
BAD_NOTES = {
    "nothing": "",
    "no signatures": TEXT,
    "no signatures after the blank line": f"{TEXT}\n",
    "no newline at the end": f"{TEXT}\n{LINE}",
    "no blank line": f"{TEXT}{LINE}\n",
    "a carriage return": f"{TEXT}\r\n{LINE}\n",
    "a tab in the text": f"a\tb\n\n{LINE}\n",
    "another dash": f"{TEXT}\n- {LINE[2:]}\n",
    "a name with a plus": f"{TEXT}\n\u2014 a+b {LINE.split(' ')[2]}\n",
    "no name": f"{TEXT}\n\u2014  {LINE.split(' ')[2]}\n",
    "a name with a space": f"{TEXT}\n\u2014 a\u00a0b {LINE.split(' ')[2]}\n",
    "no base64": f"{TEXT}\n\u2014 a !!!!\n",
    "base64 without padding": f"{TEXT}\n{LINE.rstrip('=')}\n",
    "base64 with bits to spare": f"{TEXT}\n\u2014 a AAAAAAB=\n",
    "only a key id": f"{TEXT}\n\u2014 a AAAAAA==\n",
    "too many": f"{TEXT}\n" + f"{LINE}\n" * (MAX_SIGNATURES + 1),
    "a long signature": f"{TEXT}\n\u2014 a {base64.b64encode(bytes(6000)).decode()}\n",
}


@pytest.mark.parametrize("text", BAD_NOTES.values(), ids=BAD_NOTES)
def test_notes_that_are_none(text: str) -> None:
    with refused():
        parse_note(text.encode())


def test_notes_that_are_too_large_or_no_text() -> None:
    with refused():
        parse_note(b"x" * MAX_NOTE_BYTES + f"\n\n{LINE}\n".encode())
    with refused():
        parse_note(b"\xff\n\n" + LINE.encode() + b"\n")
    assert len(parse_note(f"{TEXT}\n".encode() + f"{LINE}\n".encode() * MAX_SIGNATURES).signatures) == 64


ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "", "o\n", "o\n1\n", f"o\n1\n{ROOT}", f"\n1\n{ROOT}\n", f"o\n01\n{ROOT}\n", f"o\n-1\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n", f"o\n\u0661\n{ROOT}\n", f"o\n{2**63}\n{ROOT}\n", f"o\n{10**30}\n{ROOT}\n",
        f"o\n1\n{ROOT[:-4]}\n", f"o\n1\n{ROOT}\n\n", f"o\n1\n{ROOT}\n" + "x\n" * 17,
        f"o\n1\n{ROOT}\n{'x' * 1025}\n", f"{'o' * 1025}\n1\n{ROOT}\n", f"o\n1 \n{ROOT}\n",
    ],
)  # fmt: skip
def test_checkpoints_that_are_none(text: str) -> None:
    with refused():
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "", "a", "a+c74f20a3", NEUMANN.upper(), NEUMANN.replace("c74f20a3", "c74f20a4"), NEUMANN + "A",
        NEUMANN[:-4], "a b" + NEUMANN, NEUMANN.replace("+ARpc", "+BRpc"), "x" * 2000 + NEUMANN,
    ],
)  # fmt: skip
def test_verifier_keys_that_are_none(vkey: str) -> None:
    with refused():
        VerifierKey.parse(vkey)


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=20
)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(deadline=None)
@given(
    lines,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(lines, max_size=3),
    st.lists(
        st.builds(Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80)),
        min_size=1,
        max_size=5,
    ),
)
def test_what_is_written_is_read(
    origin: str, size: int, root: bytes, extensions: list[str], signatures: list[Signature]
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    note = Note(checkpoint.text, tuple(signatures))
    assert parse_note(bytes(note)) == note
    assert Checkpoint.parse(note.text) == checkpoint
