"""Style, script and icons: read once, served under a path that names their content, and so kept by browsers for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from director.admin.web import dress, is_read, only_read, refusal

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
#: Under the path of the content of today it can't change; under another it is only today's content.
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_AGAIN = "public, no-cache"


class Asset(NamedTuple):
    type: str
    body: bytes
    etag: str


def load() -> dict[str, Asset]:
    """Every file of the package's ``static``."""
    found = {}
    for file in files("director.admin.ui").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            found[file.name] = Asset(kind, body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found


class Static(Resource):
    """``/static/<version>/<name>``. One version for all, so that they can refer to each other by bare name."""

    isLeaf = True

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        super().__init__()
        self._assets = assets
        together = "".join(f"{name}{asset.etag}" for name, asset in sorted(assets.items()))
        self.version = hashlib.sha256(together.encode()).hexdigest()[:12]

    def url(self, name: str) -> str:
        """Where the file of this name is. Raises KeyError when there is none."""
        assert self._assets[name]
        return f"/static/{self.version}/{name}"

    def render(self, request: Request) -> bytes | int:
        dress(request)
        if not is_read(request):
            return only_read(request)
        version, _, name = b"/".join(request.postpath or ()).decode("utf-8", "replace").partition("/")
        asset = self._assets.get(name)
        if asset is None:
            return refusal(request, 404, "no such file")
        request.setHeader("Cache-Control", _FOR_GOOD if version == self.version else _ASK_AGAIN)
        request.setHeader("Content-Type", asset.type)
        if request.setETag(asset.etag.encode()):
            return b""
        request.setHeader("Content-Length", str(len(asset.body)))
        request.write(asset.body)  # which leaves the body out of an answer to HEAD
        request.finish()
        return NOT_DONE_YET
