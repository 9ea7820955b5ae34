"""The customer's avatars and their selfies."""

import re
from dataclasses import asdict
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from darkroom.core.avatars import AvatarView
from darkroom.edges.api import Joined, Key, UserId, checked_key
from darkroom.edges.envelope import success
from darkroom.edges.fields import Id, clean_text
from darkroom.edges.gate import BodyAllowance
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.streams import is_known
from darkroom.edges.upload import REQUEST_BYTES_MAX, boundary_of, files_of
from darkroom.edges.views import time_text
from darkroom.flow.add_selfie import SELFIES_MAX, add_selfies, describe
from darkroom.flow.make_avatar import AVATARS_MAX, AvatarRequest, call_avatar, make_avatar
from darkroom.flow.read_avatars import (
    RemarkedSelfie,
    read_avatars,
    read_selfie_image,
    read_selfies,
)
from darkroom.flow.remove import remove_avatar, remove_selfie

router = APIRouter(prefix="/api/avatars", route_class=SignedInRoute, tags=["avatars"])

AVATAR_NAME_MAX: Final = 100
"""The column's own limit."""
UPLOADS: Final = BodyAllowance(
    "POST", re.compile(r"/api/avatars/[^/]*/references"), REQUEST_BYTES_MAX
)
"""What the gate lets through for selfies; every other body stays small."""


def parse_avatar_name(value: object) -> str:
    """A name people type: white space around it is not part of it."""
    return clean_text(value.strip() if isinstance(value, str) else value, AVATAR_NAME_MAX)


AvatarName = Annotated[
    str,
    BeforeValidator(parse_avatar_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": AVATAR_NAME_MAX}),
]


class AvatarBody(BaseModel):
    """`POST /api/avatars` and `PATCH /api/avatars/{id}`."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    name: AvatarName


@router.post("", status_code=201)
async def make(
    body: AvatarBody, user_id: UserId, darkroom: Joined, key: Key = None
) -> JSONResponse:
    """Make an avatar. The same Idempotency-Key gives the same avatar; a fourth is refused."""
    avatar = await make_avatar(
        darkroom,
        AvatarRequest(
            user_id=user_id,
            name=body.name,
            idempotency_key=checked_key(key),
            request_id=uuid4(),
        ),
    )
    return success(_avatar(avatar), 201)


@router.get("")
async def show(user_id: UserId, darkroom: Joined) -> JSONResponse:
    """The caller's avatars, oldest first, with how many selfies each has and how its last set went."""
    avatars = await read_avatars(darkroom, user_id=user_id)
    return success(
        {
            "avatars": [_avatar(avatar) for avatar in avatars],
            "avatarsMax": AVATARS_MAX,
            "selfiesMax": SELFIES_MAX,
        }
    )


@router.patch("/{avatar_id}")
async def call(avatar_id: Id, body: AvatarBody, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Give an avatar another name."""
    avatar = await call_avatar(darkroom, user_id=user_id, avatar_id=avatar_id, name=body.name)
    return success(_avatar(avatar))


@router.delete("/{avatar_id}")
async def remove(avatar_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Delete an avatar, unless something paid for still needs it (AVATAR_BUSY)."""
    await remove_avatar(darkroom, user_id=user_id, avatar_id=avatar_id)
    return success({"avatarId": avatar_id, "deleted": True})


@router.post(
    "/{avatar_id}/references",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["files"],
                        "properties": {
                            "files": {
                                "type": "array",
                                "items": {"type": "string", "format": "binary"},
                            }
                        },
                    }
                }
            },
        }
    },
)
async def upload(
    avatar_id: Id, request: Request, user_id: UserId, darkroom: Joined
) -> JSONResponse:
    """Send selfies: JPEG, PNG, WebP or HEIC, 30 MB each, at most 8 at once. Each gets its own verdict."""
    boundary = boundary_of(request)
    outcomes = await add_selfies(
        darkroom,
        user_id=user_id,
        avatar_id=avatar_id,
        receive=lambda: files_of(request, boundary),
    )
    return success({"files": [describe(outcome) for outcome in outcomes]})


@router.get("/{avatar_id}/references")
async def show_selfies(avatar_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """An avatar's selfies, oldest first, and when each will be deleted (`deletesAt`)."""
    selfies = await read_selfies(darkroom, user_id=user_id, avatar_id=avatar_id)
    return success(
        {"references": [_selfie(selfie) for selfie in selfies], "selfiesMax": SELFIES_MAX}
    )


@router.get("/{avatar_id}/references/{reference_id}/image")
async def show_selfie_image(
    avatar_id: Id, reference_id: Id, user_id: UserId, darkroom: Joined, request: Request
) -> Response:
    """A selfie's bytes, to its owner. A browser asks each time whether it may show them."""
    # Kept without asking, a face would outlive its days.
    selfie, data = await read_selfie_image(
        darkroom, user_id=user_id, avatar_id=avatar_id, selfie_id=reference_id
    )
    etag = f'"{selfie.sha256}"'
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
    }
    if is_known(request.headers, etag):
        return Response(None, 304, headers)
    return Response(data, media_type=selfie.content_type, headers=headers)


@router.delete("/{avatar_id}/references/{reference_id}")
async def remove_one_selfie(
    avatar_id: Id, reference_id: Id, user_id: UserId, darkroom: Joined
) -> JSONResponse:
    """Delete a selfie. Sets that were started with it are made to their end."""
    await remove_selfie(darkroom, user_id=user_id, avatar_id=avatar_id, selfie_id=reference_id)
    return success({"referenceId": reference_id, "deleted": True})


def _avatar(avatar: AvatarView) -> dict[str, Any]:
    last_job = None
    if avatar.last_job_id is not None:
        last_job = {
            "jobId": avatar.last_job_id,
            "status": avatar.last_job_status,
            "totalPhotos": avatar.last_job_total,
            "completedPhotos": avatar.last_job_completed,
        }
    first = avatar.first_selfie_id
    return {
        "avatarId": avatar.id,
        "name": avatar.name,
        "selfies": avatar.selfies,
        "thumbnailUrl": None if first is None else _image_url(avatar.id, first),
        "warnings": avatar.warnings,
        "lastJob": last_job,
        "createdAt": time_text(avatar.created_at),
    }


def _selfie(remarked: RemarkedSelfie) -> dict[str, Any]:
    selfie = remarked.selfie
    return {
        "referenceId": selfie.id,
        "imageUrl": _image_url(selfie.avatar_id, selfie.id),
        "width": selfie.width,
        "height": selfie.height,
        "sizeBytes": selfie.size_bytes,
        "warnings": [asdict(remark) for remark in remarked.warnings],
        "createdAt": time_text(selfie.created_at),
        "deletesAt": time_text(remarked.deletes_at),
    }


def _image_url(avatar_id: int, selfie_id: int) -> str:
    return f"/api/avatars/{avatar_id}/references/{selfie_id}/image"
