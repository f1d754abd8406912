"""A web server on the loopback address that misbehaves as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server sends, and what it was asked.

    Attributes:
        files: content by path, e.g. ``"/a.zip"``.
        cuts: after how many bytes of the body the next answers break off; then none does.
        errors: status codes of the next answers; then 200.
        ranges: whether the Range header is understood.
        etag: what the ETag header says, "" for none.
        kind: Content-Type.
        address: of the running server.
        asked: (Range header or "") of the requests so far.
    """

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"1"'
    kind: str = "application/octet-stream"
    address: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Run the server for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(site, self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(site: Site, request: BaseHTTPRequestHandler) -> None:
    """Answer one request as the site is told."""
    wanted = request.headers.get("Range", "")
    site.asked.append(wanted)
    if site.errors or request.path not in site.files:
        request.send_error(site.errors.pop(0) if site.errors else 404)
        return
    body, start = site.files[request.path], 0
    same = request.headers.get("If-Range", site.etag) == site.etag
    if wanted and site.ranges and same:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
    if start and start >= len(body):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(body)}")
        request.end_headers()
        return
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    if site.etag:
        request.send_header("ETag", site.etag)
    request.send_header("Content-Type", site.kind)
    request.send_header("Content-Length", str(len(body) - start))
    request.end_headers()
    with suppress(OSError):  # whoever asked may have left
        request.wfile.write(body[start:][: site.cuts.pop(0)] if site.cuts else body[start:])
