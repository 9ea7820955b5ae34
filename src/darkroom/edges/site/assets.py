"""Files of the pages: read once, named by their content, kept by browsers for good."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

STATIC: Final = ("app.css", "app.js", "early.js", "htmx.min.js", "icon.svg")
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
_SQUEEZED: Final = frozenset({".css", ".js", ".svg"})


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to be sent."""

    data: bytes
    squeezed: bytes | None
    content_type: str


class Assets:
    """The bundled files and what the brand adds (its colours, its examples, its logo)."""

    def __init__(self, more: Mapping[str, bytes]) -> None:
        self._by_path: dict[str, Asset] = {}
        self._paths: dict[str, str] = {}
        folder = files("darkroom").joinpath("web/static")
        for name in STATIC:
            self._add(name, folder.joinpath(name).read_bytes())
        for name, data in more.items():
            self._add(name, data)

    def path(self, name: str) -> str:
        """Where a file is. It changes with the file's content, so what a browser has is never old.

        Raises:
            KeyError: no such file.
        """
        return self._paths[name]

    def answer(self, path: str, headers: Headers) -> Response | None:
        """The file at this path; None: there is none."""
        asset = self._by_path.get(path)
        if asset is None:
            return None
        kept = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept-Encoding",
        }
        if asset.squeezed is not None and takes_gzip(headers):
            return Response(
                asset.squeezed, 200, {**kept, "Content-Encoding": "gzip"}, asset.content_type
            )
        return Response(asset.data, 200, kept, asset.content_type)

    def _add(self, name: str, data: bytes) -> None:
        pure = PurePosixPath(name)
        digest = hashlib.sha256(data).hexdigest()[:12]
        path = f"/assets/{pure.stem}.{digest}{pure.suffix}"
        squeezed = gzip.compress(data, 9, mtime=0) if pure.suffix in _SQUEEZED else None
        self._paths[name] = path
        self._by_path[path] = Asset(data, squeezed, TYPES[pure.suffix])


def takes_gzip(headers: Headers) -> bool:
    """Whether the client unpacks gzip."""
    return "gzip" in headers.get("accept-encoding", "")
