"""Photos and sets as bytes. The link is the permission; an owner without one is sent to one."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from darkroom.edges.api import Joined
from darkroom.edges.envelope import failure
from darkroom.edges.fields import Id, parse_id
from darkroom.edges.identity import Identity
from darkroom.edges.streams import (
    ClosingStream,
    Span,
    UnsatisfiableRangeError,
    asked_span,
    disposition,
    is_known,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found
from darkroom.flow.hand_out_photos import PhotoFile, find_photo_file
from darkroom.flow.photo_links import LinkClaim, Variant
from darkroom.flow.zip_photos import zip_photos

router = APIRouter(prefix="/api", tags=["photos"])

SIGNATURE_MAX: Final = 64
"""43 characters are what a link has; longer text is not compared at all."""
TELEGRAM_WEB: Final = "https://web.telegram.org"
"""The Mini App's `downloadFile` in a browser asks from there, and needs to be let in by name."""

Field = Annotated[str | None, Query(description="of a signed link")]
Download = Annotated[
    str | None, Query(description="`1`: to be saved under a name, not to be shown")
]
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/jpeg": {}, "image/png": {}, "image/webp": {}}},
    206: {"description": "a part"},
    302: {"description": "a session, and no link: go to a signed link"},
    304: {"description": "the client has it"},
    404: {"description": "no such photo, or a link that is wrong or over"},
    416: {"description": "the range begins behind the end"},
}


class _Link:
    """What an address says about its permission. Anything odd in it is simply no permission."""

    def __init__(self, request: Request, row_id: int, variant: Variant) -> None:
        query = request.query_params
        self.is_given = "signature" in query
        self.claim: LinkClaim | None = None
        signature = query.get("signature", "")
        try:
            user, expires = parse_id(query.get("user")), parse_id(query.get("expires"))
        except ValueError:
            return
        if len(signature) <= SIGNATURE_MAX:
            self.claim = LinkClaim(user, row_id, variant, expires, signature)

    def permits(self, darkroom: Darkroom, what: str) -> tuple[int, int]:
        """The user, and for how many seconds more. Raises RequestRefusedError 404, with no hint why."""
        left = None if self.claim is None else darkroom.links.seconds_valid(self.claim)
        if self.claim is None or left is None:
            raise not_found(what)
        return self.claim.user_id, left


async def _caller(request: Request) -> int:
    identity: Identity = request.app.state.identity
    return await identity.user_of(request)


@router.head("/photos/{photo_id}/image", include_in_schema=False)
@router.get("/photos/{photo_id}/image", responses=_BYTES, response_class=Response)
async def image(
    request: Request,
    photo_id: Id,
    darkroom: Joined,
    *,
    variant: Field = None,
    expires: Field = None,  # noqa: ARG001 - read by _Link
    user: Field = None,  # noqa: ARG001
    signature: Field = None,  # noqa: ARG001
    download: Download = None,
) -> Response:
    """A photo, or its thumbnail, by a signed link."""
    if variant not in (None, "full", "thumb"):
        raise not_found("photo")
    chosen: Literal["full", "thumb"] = "thumb" if variant == "thumb" else "full"
    link = _Link(request, photo_id, chosen)
    if not link.is_given:
        user_id = await _caller(request)
        await find_photo_file(darkroom, user_id=user_id, photo_id=photo_id, variant=chosen)
        target = darkroom.links.photo(user_id=user_id, photo_id=photo_id, variant=chosen)
        saved = "&download=1" if download == "1" else ""
        return RedirectResponse(target + saved, 302, {"Cache-Control": "no-store"})
    user_id, seconds_left = link.permits(darkroom, "photo")
    file = await find_photo_file(darkroom, user_id=user_id, photo_id=photo_id, variant=chosen)
    return await serve_photo(
        request, file, kind="attachment" if download == "1" else "inline", max_age=seconds_left
    )


async def serve_photo(request: Request, file: PhotoFile, *, kind: str, max_age: int) -> Response:
    """A picture, or the part of it that is asked for; a cache may keep it for `max_age` seconds."""
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        # Never longer than the link: a cache must not outlive the permission.
        "Cache-Control": f"private, max-age={max_age}, immutable",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if is_known(request.headers, etag):
        return Response(None, 304, headers)
    headers |= _naming(kind, plain_name=file.plain_name, name=file.name)
    span = Span(0, file.size_bytes)
    status = 200
    if request.method == "GET":
        try:
            part = asked_span(request.headers, etag=etag, size_bytes=file.size_bytes)
        except UnsatisfiableRangeError:
            return failure(
                416,
                "RANGE_NOT_SATISFIABLE",
                "The photo is shorter than that",
                headers={"Content-Range": f"bytes */{file.size_bytes}"},
            )
        if part is not None:
            status, span = 206, part
            headers["Content-Range"] = f"bytes {span.first}-{span.beyond - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(span.beyond - span.first)
    if request.method == "HEAD":
        return Response(None, status, headers, file.content_type)
    pieces = await file.read(span.first, span.beyond)
    return ClosingStream(pieces, status, headers, file.content_type)


def _naming(kind: str, *, plain_name: str, name: str) -> dict[str, str]:
    headers = {"Content-Disposition": disposition(kind, plain_name=plain_name, name=name)}
    if kind == "attachment":
        headers["Access-Control-Allow-Origin"] = TELEGRAM_WEB
    return headers


@router.head("/jobs/{job_id}/photos.zip", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/photos.zip",
    responses={
        200: {"content": {"application/zip": {}}},
        404: {
            "description": "no such set, none of its photos yet, or a link that is wrong or over"
        },
    },
    response_class=Response,
)
async def archive(
    request: Request,
    job_id: Id,
    darkroom: Joined,
    *,
    expires: Field = None,  # noqa: ARG001 - read by _Link
    user: Field = None,  # noqa: ARG001
    signature: Field = None,  # noqa: ARG001
) -> Response:
    """A set's photos so far as one ZIP, by a signed link or by the owner's session."""
    link = _Link(request, job_id, "zip")
    user_id = link.permits(darkroom, "job")[0] if link.is_given else await _caller(request)
    file = await zip_photos(darkroom, user_id=user_id, job_id=job_id)
    headers = {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "none",
        **_naming("attachment", plain_name=file.plain_name, name=file.name),
    }
    if file.size_bytes is not None:
        headers["Content-Length"] = str(file.size_bytes)
    if request.method == "HEAD":
        return Response(None, 200, headers, "application/zip")
    return ClosingStream(file.read(), 200, headers, "application/zip")
