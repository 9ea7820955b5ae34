"""Selfies put straight into the object store: for hosting whose requests may have 4.5 MB at most."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from darkroom.edges.api import Joined, UserId
from darkroom.edges.envelope import success
from darkroom.edges.fields import Id, clean_text
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.upload import FILE_NAME_MAX, FILES_MAX
from darkroom.edges.views import time_text
from darkroom.flow.add_selfie import describe
from darkroom.flow.received_file import FILE_BYTES_MAX
from darkroom.flow.upload_directly import keep_uploads, open_uploads

router = APIRouter(prefix="/api/avatars", route_class=SignedInRoute, tags=["avatars"])


def _file_name(value: object) -> str:
    return clean_text(value, FILE_NAME_MAX)


FileName = Annotated[
    str,
    BeforeValidator(_file_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": FILE_NAME_MAX}),
]


class OpenBody(BaseModel):
    """`POST /api/avatars/{id}/uploads`."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    file_names: list[FileName] = Field(alias="fileNames", min_length=1, max_length=FILES_MAX)


class KeepBody(BaseModel):
    """`POST /api/avatars/{id}/uploads/complete`."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    upload_ids: list[UUID] = Field(alias="uploadIds", min_length=1, max_length=FILES_MAX)


@router.post("/{avatar_id}/uploads", status_code=201)
async def open_for(
    avatar_id: Id, body: OpenBody, user_id: UserId, darkroom: Joined
) -> JSONResponse:
    """An address per file: PUT each there, then name them at `uploads/complete`.

    409 NO_DIRECT_UPLOADS where the store gives no addresses: send them to `references` as a form.
    """
    links = await open_uploads(
        darkroom, user_id=user_id, avatar_id=avatar_id, file_names=body.file_names
    )
    uploads = [
        {
            "uploadId": str(link.id),
            "method": "PUT",
            "url": link.url,
            "expiresAt": time_text(link.ends_at),
        }
        for link in links
    ]
    return success({"uploads": uploads, "maxBytes": FILE_BYTES_MAX}, 201)


@router.post("/{avatar_id}/uploads/complete")
async def keep(avatar_id: Id, body: KeepBody, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """The files are there: look at them and keep the good ones. Each gets its own verdict."""
    outcomes = await keep_uploads(
        darkroom,
        user_id=user_id,
        avatar_id=avatar_id,
        upload_ids=list(dict.fromkeys(body.upload_ids)),
    )
    return success({"files": [describe(outcome) for outcome in outcomes]})
