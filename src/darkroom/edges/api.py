"""The customer's API: start a set, pay for one, see what there is."""

from typing import Annotated, Any, Final
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from darkroom.core.customer_messages import MessageView
from darkroom.edges.envelope import success
from darkroom.edges.fields import (
    KEY_MAX,
    Id,
    Name,
    OptionalEmail,
    OptionalId,
    OptionalName,
    clean_text,
)
from darkroom.edges.identity import SignedInRoute, user_id_of
from darkroom.edges.views import Viewer, payment_json, time_text
from darkroom.flow.ask_back import ask_back
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.read_back import read_job, read_messages, read_payment, read_photos
from darkroom.flow.start_generation import GenerateRequest, start_generation

router = APIRouter(prefix="/api", route_class=SignedInRoute, tags=["customer"])

UserId = Annotated[int, Depends(user_id_of)]
Key = Annotated[str | None, Header(alias="Idempotency-Key")]
KEYS: Final = UUID("6f6b3f0e-5d0a-4f0c-9a65-0d6f1f6a7c21")
"""Under which the ids of requests with a key are made."""


async def darkroom_of(request: Request) -> Darkroom:
    """The joined program."""
    darkroom: Darkroom = request.app.state.darkroom
    return darkroom


Joined = Annotated[Darkroom, Depends(darkroom_of)]


def checked_key(key: str | None) -> str | None:
    """An Idempotency-Key that can be kept. Raises RequestRefusedError 400."""
    if key is None:
        return None
    try:
        return clean_text(key, KEY_MAX)
    except ValueError as error:
        raise RequestRefusedError(400, "INVALID_KEY", f"Idempotency-Key {error}") from error


def request_id_of(verb: str, user_id: int, key: str | None) -> UUID:
    """A request's id: with the same key the same one, of this user alone. Raises RequestRefusedError 400."""
    given = checked_key(key)
    return uuid4() if given is None else uuid5(KEYS, f"{verb} {user_id} {given}")


class GenerateBody(BaseModel):
    """`POST /api/generate`. The photo count is the payment's: one sent here is not read."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    avatar_id: Id = Field(alias="avatarId")
    style_id: Name = Field(alias="styleId")
    use_stored_references: bool = Field(
        True, alias="useStoredReferences", description="selfies are always the avatar's stored ones"
    )
    payment_id: OptionalId = Field(None, alias="paymentId")


@router.post("/generate")
async def generate(
    body: GenerateBody, user_id: UserId, darkroom: Joined, key: Key = None
) -> JSONResponse:
    """Start one set on one payment. N at once on one payment: one wins, the rest get PAYMENT_CONSUMED."""
    if not body.use_stored_references:
        raise RequestRefusedError(
            400, "NO_REFERENCE_IMAGES", "Upload photos to the avatar and use the stored ones"
        )
    job = await start_generation(
        darkroom,
        GenerateRequest(
            user_id=user_id,
            avatar_id=body.avatar_id,
            style_id=body.style_id,
            payment_id=body.payment_id,
            idempotency_key=checked_key(key),
            request_id=uuid4(),
        ),
    )
    return success(
        {
            "jobId": job.id,
            "avatarId": job.avatar_id,
            "status": job.status,
            "totalPhotos": job.total_photos,
        }
    )


class OrderBody(BaseModel):
    """`POST /api/payments`. With an avatar and a style the set starts when the money is there."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    tier_id: Name = Field(alias="tierId")
    provider: OptionalName = None
    avatar_id: OptionalId = Field(None, alias="avatarId")
    style_id: OptionalName = Field(None, alias="styleId")
    receipt_email: OptionalEmail = Field(
        None, alias="receiptEmail", description="where the receipt goes; some ways to pay need it"
    )


@router.post("/payments", status_code=201)
async def order(
    body: OrderBody, user_id: UserId, darkroom: Joined, key: Key = None
) -> JSONResponse:
    """Order a set and learn where to pay. The same Idempotency-Key gives the same payment."""
    payment = await order_photos(
        darkroom,
        OrderRequest(
            user_id=user_id,
            tier_id=body.tier_id,
            provider=body.provider,
            avatar_id=body.avatar_id,
            style_id=body.style_id,
            idempotency_key=checked_key(key),
            request_id=uuid4(),
            receipt_email=body.receipt_email,
        ),
    )
    return success(payment_json(payment), 201)


@router.get("/payments/{payment_id}")
async def show_payment(payment_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """One payment of the caller."""
    return success(
        payment_json(await read_payment(darkroom, user_id=user_id, payment_id=payment_id))
    )


@router.post("/payments/{payment_id}/refund")
async def ask_money_back(payment_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Ask an unused payment back. From here on it starts nothing; asked twice, it goes back once."""
    return success(payment_json(await ask_back(darkroom, user_id=user_id, payment_id=payment_id)))


@router.get("/messages")
async def show_messages(
    user_id: UserId,
    darkroom: Joined,
    before: OptionalId = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> JSONResponse:
    """A page of what the caller was told, newest first; `nextBefore` asks for the next one."""
    messages = await read_messages(darkroom, user_id=user_id, before_id=before, limit=limit)
    following = messages[-1].id if len(messages) == limit else None
    return success({"messages": [_message(one) for one in messages], "nextBefore": following})


@router.get("/jobs/{job_id}")
async def show_job(job_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """One set of the caller, counted by its own photos, with the photos so far and the time left."""
    job = await read_job(darkroom, user_id=user_id, job_id=job_id)
    return success(Viewer(user_id, darkroom.links).job(job))


@router.get("/avatars/{avatar_id}/photos")
async def show_photos(
    avatar_id: Id,
    user_id: UserId,
    darkroom: Joined,
    before: OptionalId = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> JSONResponse:
    """A page of an avatar's photos, newest first; `nextBefore` asks for the next one."""
    photos = await read_photos(
        darkroom, user_id=user_id, avatar_id=avatar_id, before_id=before, limit=limit
    )
    following = photos[-1].id if len(photos) == limit else None
    viewer = Viewer(user_id, darkroom.links)
    return success({"photos": [viewer.photo(one) for one in photos], "nextBefore": following})


def _message(message: MessageView) -> dict[str, Any]:
    return {
        "messageId": message.id,
        "kind": message.kind,
        "paymentId": message.payment_id,
        "textRu": message.text_ru,
        "textEn": message.text_en,
        "createdAt": time_text(message.created_at),
    }
