"""Files of every kind that a node reads, made on the spot: good ones, and bombs."""

from __future__ import annotations

import io
import json
import zipfile
import zlib

import docx

from node.index.parsing import media

WORDS = "The ward closes at eight."


def pdf_of(objects: list[bytes]) -> bytes:
    """A PDF of these objects, the first of which is the catalogue."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def stream_of(data: bytes, filters: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n" % (len(data), filters) + data + b"\nendstream"


def pdf_with_page(content: bytes, kids: bytes = b"3 0 R", count: int = 1) -> bytes:
    """One page of this content stream (an object, see stream_of), listed as `kids`."""
    return pdf_of([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, count),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        content,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ])  # fmt: skip


def pdf(words: str = WORDS) -> bytes:
    return pdf_with_page(stream_of(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % words.encode()))


def pdf_bomb(layers: int, size: int) -> bytes:
    """A page whose content was packed `layers` times, from `size` bytes."""
    data = b" " * size
    for _ in range(layers):
        data = zlib.compress(data, 9)
    return pdf_with_page(stream_of(data, b"/Filter [%s]" % (b"/FlateDecode " * layers)))


def word(words: str = WORDS) -> bytes:
    document = docx.Document()
    document.core_properties.title = "Rules"
    document.add_heading("Visits", 1)
    document.add_paragraph(words)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Monday", "open"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def word_with(members: dict[str, bytes], base: bytes | None = None) -> bytes:
    """A DOCX with some members replaced or added."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(base or word())) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name not in members:
                new.writestr(name, old.read(name))
        for name, data in members.items():
            new.writestr(name, data)
    return out.getvalue()


def understated(package: bytes, member: bytes, declared: int) -> bytes:
    """The package with another size for `member` in its central directory."""
    at = package.rindex(b"PK\x01\x02", 0, package.rindex(member))
    return package[: at + 24] + declared.to_bytes(4, "little") + package[at + 28 :]


def one_of_each() -> dict[str, bytes]:
    """A well-formed file per media type; all say WORDS."""
    return {
        media.TEXT: WORDS.encode(),
        media.MARKDOWN: f"---\ntitle: Rules\n---\n# Visits\n\n{WORDS}\n".encode(),
        media.HTML: f"<html><head><title>Rules</title></head><body><h1>Visits</h1>{WORDS}</body>".encode(),
        media.PDF: pdf(),
        media.DOCX: word(),
        media.JSONL: json.dumps({"id": "1", "text": WORDS}).encode() + b"\n",
        media.CSV: f"id,text\n1,{WORDS}\n".encode(),
    }
