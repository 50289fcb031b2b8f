"""A witness: remembers the newest checkpoint of each log that it was shown, and cosigns what follows from it.

Rules kept here:
- What was seen is on disk before a cosignature leaves: a witness that is killed forgets nothing it signed.
- What it remembers is never guessed: a file that cannot be read is a refusal, not a log that was never seen.
- What does not follow (mesh/core/witness.py) is refused, and kept as an alarm with both checkpoints, which
  carry the log's own signature. Of a fork they are the proof; that a log went back or does not show its
  growth is this witness's word besides. The first of each finding about a log are kept.
- A log is judged under each of its keys by what was seen under that key: beginning anew under another is an
  alarm, and going back to the first goes on where it was.

Cosignatures are C2SP tlog-cosignature's, of whole seconds. No entry is written to the witness's own log: two
logs that witness each other would never rest.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from mesh.core.bounded import Bounded
from mesh.core.cosigned import MAX_NOTE_CHARS, origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.notes import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    Note,
    VerifierKey,
    parse_note,
    sign,
    verify,
)
from mesh.core.types import SpiffeId
from mesh.core.witness import MAX_ALARMS, REASONS, Alarm, Behind, Finding, Wrong, judge
from mesh.evidence.base import Signer, damaged, unavailable
from mesh.identity.log_keys import verify_ed25519
from mesh.identity.private_files import make_private_directory, read_file, write_file

_LOG = logging.getLogger(__name__)

MAX_ALARMS_OF_A_KIND = 8  # of each finding about each log
MAX_KEYS_OF_A_LOG = 16
_REMEMBERED = 4096
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Seen:
    key: bytes
    note: bytes
    checkpoint: Checkpoint


class Witness:
    """Of one node. `folder` is its own; `clock` is Unix seconds. One event loop."""

    def __init__(self, folder: Path, node: SpiffeId, signer: Signer, clock: Callable[[], float]) -> None:
        self.key = VerifierKey(origin_of(node), COSIGNATURE, signer.public)
        self._folder = folder
        self._alarms = folder / "alarms"
        self._signer = signer
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known: Bounded[tuple[str, bytes], _Seen] = Bounded(_REMEMBERED)

    async def cosign(
        self, origin: str, log_key: bytes, note: bytes, old_size: int, proof: Sequence[bytes]
    ) -> tuple[str, int]:
        """(signature line, size), or ("", the size that was seen) if that is not `old_size`.

        `origin` and `log_key` are the asking log's, as its node's record in force says. Raises NOTE_INVALID,
        LOG_FORKED, LOG_ROLLED_BACK, PROOF_INVALID, EVIDENCE_DAMAGED, EVIDENCE_UNAVAILABLE.
        """
        if len(note) > MAX_NOTE_CHARS:
            raise MeshError(Reason.NOTE_INVALID, f"checkpoint: expected at most {MAX_NOTE_CHARS} bytes")
        parsed = parse_note(note)
        key = VerifierKey(origin, ED25519, log_key)
        verify(parsed, [key], verify_ed25519)
        offered = Checkpoint.parse(parsed.text)
        if offered.origin != origin or offered.extensions:
            raise MeshError(
                Reason.NOTE_INVALID, "checkpoint: expected one of the caller's own log, without extensions"
            )
        # What is kept, and may come back in an alarm, is the log's word and nothing that others added.
        own = tuple(each for each in parsed.signatures if (each.name, each.key_id) == (key.name, key.key_id))
        seen = _Seen(log_key, bytes(Note(parsed.text, own[:1])), offered)
        # A caller that goes away must not part what is on disk from what is remembered.
        work = asyncio.ensure_future(self._judged(origin, seen, old_size, tuple(proof)))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def alarms(self) -> tuple[Alarm, ...]:
        """Those that are kept, oldest first."""
        return await asyncio.to_thread(self._read_alarms)

    async def _judged(
        self, origin: str, offered: _Seen, old_size: int, proof: tuple[bytes, ...]
    ) -> tuple[str, int]:
        lock = self._locks.setdefault(origin, asyncio.Lock())
        async with lock:
            seen = await self._seen(origin, offered)
            verdict = judge(seen.checkpoint if seen else None, offered.checkpoint, old_size, proof)
            if isinstance(verdict, Behind):
                return "", verdict.size
            if isinstance(verdict, Wrong):
                await self._alarm(origin, verdict, seen, offered)
                raise MeshError(REASONS[verdict.finding], f"the log of {origin}: {verdict.detail}")
            if seen is None or seen.checkpoint != offered.checkpoint:
                await asyncio.to_thread(self._store, origin, offered)
                self._known.put((origin, offered.key), offered)
            text = offered.checkpoint.text
            line = sign(text, self.key, self._signer.sign, timestamp=int(self._clock())).line
            return line, offered.checkpoint.size

    async def _seen(self, origin: str, offered: _Seen) -> _Seen | None:
        """What was seen of the log under this very key. One that is new is an alarm; one that was seen before
        goes on where it was, so that going back to it opens nothing."""
        known = self._known.get((origin, offered.key))
        if known is None:
            known = await asyncio.to_thread(self._load, origin, offered.key)
            if known is not None:
                self._known.put((origin, offered.key), known)
        if known is None:
            others = await asyncio.to_thread(self._newest_of, origin)
            if len(others) >= MAX_KEYS_OF_A_LOG:
                raise MeshError(
                    Reason.LOG_FORKED, f"the log of {origin} has begun anew under {MAX_KEYS_OF_A_LOG} keys"
                )
            if others:
                wrong = Wrong(Finding.NEW_KEY, "its log began anew under another key")
                await self._alarm(origin, wrong, others[-1], offered)
        return known

    async def _alarm(self, origin: str, wrong: Wrong, seen: _Seen | None, offered: _Seen) -> None:
        alarm = Alarm(
            origin,
            str(wrong.finding),
            wrong.detail,
            self._clock(),
            seen.note.decode() if seen else "",
            offered.note.decode(),
        )
        if await asyncio.to_thread(self._store_alarm, alarm):
            _LOG.critical("the log of %s: %s (%s)", origin, wrong.detail, wrong.finding)

    def _path(self, origin: str, key: bytes) -> Path:
        return self._folder / "seen" / _name(origin.encode()) / f"{_name(key)}.json"

    def _newest_of(self, origin: str) -> list[_Seen]:
        """What was seen of a log under any key, in the order in which it was written last."""
        folder = self._folder / "seen" / _name(origin.encode())
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [self._read(origin, file) for file in files]

    def _load(self, origin: str, key: bytes) -> _Seen | None:
        try:
            found = self._read(origin, self._path(origin, key))
        except FileNotFoundError:
            return None
        if found.key != key:
            raise self._unreadable(self._path(origin, key))
        return found

    def _read(self, origin: str, path: Path) -> _Seen:
        try:
            document = json.loads(read_file(path, private=True, limit=_MAX_FILE_BYTES))
            note = str(document["note"]).encode()
            key = base64.b64decode(document["key"], validate=True)
            verify(parse_note(note), [VerifierKey(origin, ED25519, key)], verify_ed25519)
            checkpoint = Checkpoint.parse(parse_note(note).text)
            if checkpoint.origin != origin or document["origin"] != origin:
                raise ValueError
        except MeshError as error:
            if error.reason is Reason.NOT_FOUND:
                raise FileNotFoundError from None
            raise self._unreadable(path) from None
        except (ValueError, TypeError, LookupError):
            raise self._unreadable(path) from None
        return _Seen(key, note, checkpoint)

    def _unreadable(self, path: Path) -> MeshError:
        return damaged(
            f"{path.name}: expected what this witness has seen of a log; none of that log's checkpoints is"
            " cosigned until the file is restored, or removed by somebody who has looked into it"
        )

    def _store(self, origin: str, seen: _Seen) -> None:
        document = {"origin": origin, "key": base64.b64encode(seen.key).decode(), "note": seen.note.decode()}
        self._write(self._path(origin, seen.key), document)

    def _store_alarm(self, alarm: Alarm) -> bool:
        """Whether it is a new one. The first of each finding are kept: none crowds out another."""
        for number in range(MAX_ALARMS_OF_A_KIND):
            path = self._alarms / f"{_name(alarm.origin.encode())}-{alarm.finding}-{number}.json"
            if not path.exists():
                self._write(path, asdict(alarm))
                return True
            found = _read_alarm(path)
            if found is not None and _same(found, alarm):
                return False
        return False

    def _write(self, path: Path, document: object) -> None:
        try:
            make_private_directory(path.parent)
            write_file(path, json.dumps(document, indent=1).encode(), replace=True)
        except OSError:
            raise unavailable("what this witness has seen cannot be written, so it signs nothing") from None

    def _read_alarms(self) -> tuple[Alarm, ...]:
        paths = sorted(self._alarms.glob("*.json"))[:MAX_ALARMS] if self._alarms.is_dir() else []
        found = [alarm for path in paths if (alarm := _read_alarm(path)) is not None]
        return tuple(sorted(found, key=lambda alarm: alarm.at))


def _read_alarm(path: Path) -> Alarm | None:
    try:
        return Alarm(**json.loads(read_file(path, private=True, limit=_MAX_FILE_BYTES)))
    except (ValueError, TypeError, MeshError):
        _LOG.error("%s: expected an alarm", path.name)
        return None


def _same(one: Alarm, other: Alarm) -> bool:
    return (one.finding, one.seen, one.offered) == (other.finding, other.seen, other.offered)


def _name(of: bytes) -> str:
    return hashlib.sha256(of).hexdigest()[:40]
