"""Whatever bytes come where a note, a checkpoint or a verifier key is expected: one, or NOTE_INVALID."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import ED25519, Checkpoint, Note, VerifierKey, parse_note, sign, verify
from mesh.identity.log_keys import LogKey, verify_ed25519

SIGNER = LogKey.generate()
KEY = VerifierKey("de.mesh.example/node/fra-1", ED25519, SIGNER.public)
TEXT = Checkpoint(KEY.name, 7, b"r" * 32, ("an extension",)).text
NOTE = bytes(Note(TEXT, (sign(TEXT, KEY, SIGNER.sign),)))

PIECES = (b"\n", b"\n\n", "\u2014 ".encode(), b" ", b"+", b"=", b"0", b"\0", b"\xff", "\u2028".encode())


def read(data: bytes) -> Note | None:
    try:
        note = parse_note(data)
    except MeshError as error:
        if error.reason is not Reason.NOTE_INVALID:
            raise
        return None
    assert bytes(note) == data, "one way to write it"
    return note


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=30))
def test_any_bytes(pieces: list[bytes]) -> None:
    read(b"".join(pieces))


@settings(deadline=None)
@given(
    st.integers(0, len(NOTE)), st.integers(0, 12), st.one_of(st.sampled_from(PIECES), st.binary(max_size=12))
)
@example(0, 0, b"")
def test_an_altered_note_is_refused(at: int, length: int, put: bytes) -> None:
    altered = NOTE[:at] + put + NOTE[at + length :]
    note = read(altered)
    if note is None:
        return
    try:
        signed = verify(note, [KEY], verify_ed25519)
    except MeshError as error:
        if error.reason is not Reason.NOTE_INVALID or altered == NOTE:
            raise
    else:
        assert signed
        assert note.text == TEXT, "what verifies is what was signed"
    try:
        assert Checkpoint.parse(note.text).text == note.text
    except MeshError as error:
        if error.reason is not Reason.NOTE_INVALID:
            raise


@settings(deadline=None)
@given(st.text(max_size=120))
def test_any_text_as_a_key_or_a_checkpoint(text: str) -> None:
    for parse, write in ((VerifierKey.parse, lambda k: k.vkey), (Checkpoint.parse, lambda c: c.text)):
        try:
            assert write(parse(text)) == text
        except MeshError as error:
            if error.reason is not Reason.NOTE_INVALID:
                raise
