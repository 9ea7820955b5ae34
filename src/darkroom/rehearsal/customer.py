"""A customer with a browser: uploads straight into the store, orders, pays, asks again if nobody answers."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx

TRIES_MAX: Final = 40
"""A call whose instance was killed is made again: forty in a row do not happen to any seed worth showing."""
PAUSE_SECONDS: Final = 0.5
CALL_SECONDS: Final = 70
"""Longer than the host lets a call live."""
_SERVER_ERROR: Final = 500


class CustomerError(Exception):
    """The shop said something that a customer cannot go on from."""


@dataclass(frozen=True, slots=True)
class Bought:
    """An order that was paid."""

    payment_id: int
    avatar_id: int
    photos: int
    amount_minor: int
    currency: str


class Customer:
    """One customer of a shop.

    Attributes:
        repeated: how often a call got no answer and was made again.
    """

    def __init__(self, base_url: str, telegram_user_id: int) -> None:
        self.repeated = 0
        self._client = httpx.AsyncClient(
            base_url=base_url,
            params={"telegramUserId": telegram_user_id},
            timeout=CALL_SECONDS,
            trust_env=False,
        )
        self._outside = httpx.AsyncClient(timeout=30, trust_env=False)

    async def close(self) -> None:
        """Leave."""
        await self._client.aclose()
        await self._outside.aclose()

    async def buy(self, portrait: bytes, *, tier: str, style: str) -> Bought:
        """From a selfie to a paid order."""
        avatar = await self._call("POST", "/api/avatars", {"name": "Me"}, key=uuid4().hex)
        await self._upload(avatar["avatarId"], portrait)
        wish = {"tierId": tier, "avatarId": avatar["avatarId"], "styleId": style}
        payment = await self._call("POST", "/api/payments", wish, key=uuid4().hex)
        paid = await self._outside.post(f"{payment['checkoutUrl']}/pay")
        if not paid.is_redirect:
            raise CustomerError("the bank did not take the payment")
        return Bought(
            payment["paymentId"],
            avatar["avatarId"],
            payment["photoCount"],
            payment["amountMinor"],
            payment["currency"],
        )

    async def _upload(self, avatar_id: int, portrait: bytes) -> None:
        path = f"/api/avatars/{avatar_id}/uploads"
        opened = await self._call("POST", path, {"fileNames": ["me.png"]})
        (upload,) = opened["uploads"]
        put = await self._outside.put(upload["url"], content=portrait)
        put.raise_for_status()
        await self._call("POST", f"{path}/complete", {"uploadIds": [upload["uploadId"]]})

    async def photos(self, avatar_id: int) -> list[bytes]:
        """All photos of an avatar, in their set's order."""
        page = await self._call("GET", f"/api/avatars/{avatar_id}/photos")
        links = [
            one["imageUrl"] for one in sorted(page["photos"], key=lambda one: one["promptIndex"])
        ]
        return [(await self._answer("GET", link)).content for link in links]

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
    ) -> dict[str, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self._answer(method, path, json=body, headers=headers)
        content: dict[str, Any] = answer.json()
        if not content.get("success"):
            raise CustomerError(f"{method} {path}: {content.get('error')}")
        data: dict[str, Any] = content["data"]
        return data

    async def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """The first answer that is one: what the host cut off, or the shop could not do now, is asked again."""
        url = httpx.URL(path)
        if url.params:
            # A client's own parameters would take the place of the link's.
            options["params"] = dict(url.params)
        for _ in range(TRIES_MAX):
            try:
                answer = await self._client.request(method, path, **options)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < _SERVER_ERROR:
                return answer
            self.repeated += 1
            await asyncio.sleep(PAUSE_SECONDS)
        raise CustomerError(f"{method} {path}: no answer in {TRIES_MAX} tries")
