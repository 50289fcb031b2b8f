"""Where models come from, on loopback: an S3 bucket, a hub, and an HTTPS server, each a few lines long.

They speak as much of each protocol as the real clients of node/models ask for.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from node.engine.replica_network import TlsFiles

Answer = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[str, str, Any], Answer]
"""(method, path with query, headers) to (status, headers, body)."""


@contextmanager
def serving(behave: Behaviour, tls: TlsFiles | None = None) -> Iterator[str]:
    """Serves; yields host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = behave(self.command, self.path, self.headers)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bucket(name: str, objects: dict[str, bytes], key_id: str) -> Behaviour:
    """S3: ListObjectsV2, two keys a page, and GetObject with ranges, for whoever signs as `key_id`."""

    def behave(method: str, path: str, headers: Any) -> Answer:
        if f"Credential={key_id}/" not in (headers.get("Authorization") or ""):
            return 403, {}, b"<Error><Code>AccessDenied</Code></Error>"
        url = urlsplit(path)
        query = parse_qs(url.query)
        if "list-type" in query:
            return 200, {"Content-Type": "application/xml"}, listing(query)
        key = unquote(url.path).removeprefix(f"/{name}/")
        if key not in objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        content = objects[key]
        first, last = (int(n) for n in re.fullmatch(r"bytes=(\d+)-(\d+)", headers["Range"]).groups())  # type: ignore[union-attr]
        piece = content[first : last + 1]
        span = f"bytes {first}-{first + len(piece) - 1}/{len(content)}"
        dated = {"Last-Modified": "Sat, 28 Nov 2026 00:00:00 GMT", "ETag": '"1"'}
        return 206, {"Content-Range": span, **dated}, piece

    def listing(query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        keys = sorted(key for key in objects if key.startswith(prefix))
        start = int(query.get("continuation-token", ["0"])[0])
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size>"
            "<LastModified>2026-11-28T00:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag></Contents>"
            for key in keys[start : start + 2]
        )
        more = start + 2 < len(keys)
        token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}"
            "</ListBucketResult>"
        ).encode()

    return behave


def hub(model: str, files: dict[str, bytes], token: str, stated: Callable[[bytes], int] = len) -> Behaviour:
    """A hub with one model at revision "main", for whoever shows the token; `stated`: the sizes it tells."""
    commit = hashlib.sha1(model.encode()).hexdigest()

    def behave(method: str, path: str, headers: Any) -> Answer:
        if headers.get("Authorization") != f"Bearer {token}":
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        path = unquote(urlsplit(path).path)
        if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
            return as_json({"id": model, "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        if path == f"/api/models/{model}/tree/{commit}":
            return as_json(
                [
                    {"type": "file", "path": name, "size": stated(content), "oid": blob(content)}
                    for name, content in files.items()
                ]
            )
        name = path.removeprefix(f"/{model}/resolve/{commit}/")
        if name in files:
            content = files[name]
            return 200, {"ETag": f'"{blob(content)}"', "X-Repo-Commit": commit}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def blob(content: bytes) -> str:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def as_json(document: Any) -> Answer:
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    return behave
