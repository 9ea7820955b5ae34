"""The sandbox way to pay: a bank that takes no money, over the same road as the real ones.

Requests carry a bearer secret and an idempotency key; notices are signed over their raw bytes with a
time, as Stripe does it (external-apis 5.2).
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import httpx

from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.outside import outside_call
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    Checkout,
    Notice,
    NoticeRefusedError,
    PaidState,
    PaymentFact,
    PaymentProviderUnavailableError,
    PaymentRefusedError,
    PaymentRequest,
)

CALL_SECONDS: Final = 10
TOLERANCE_SECONDS: Final = 300
"""A notice's age, either way: the window Stripe prescribes."""
ANSWER_BYTES_MAX: Final = 65_536
SIGNATURE_HEADER: Final = "sandbox-signature"


def sign_notice(secret: str, unix_seconds: int, body: bytes) -> str:
    """The signature header of a notice."""
    text = f"{unix_seconds}.".encode() + body
    return f"t={unix_seconds},v1={hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"


class SandboxPayments:
    """The sandbox bank's client."""

    name = "sandbox"
    currency = "RUB"
    notice_reply = "OK"

    def __init__(self, *, base_url: str, secret: str, clock: Clock = system_clock) -> None:
        self._secret = secret
        self._clock = clock
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=CALL_SECONDS,
            trust_env=False,
        )

    async def create(self, request: PaymentRequest) -> Checkout:
        """Register the payment; the same key gives the same payment.

        Raises:
            PaymentRefusedError: a 4xx: nothing was created.
            PaymentProviderUnavailableError: no answer; the same key may be sent again.
        """
        answer = await self._call(
            "sandbox.create",
            "POST",
            "/v1/payments",
            headers={"Idempotency-Key": request.key},
            content={
                "order_id": request.payment_id,
                "amount_minor": request.price.amount_minor,
                "currency": request.price.currency,
                "title": request.title,
                "return_url": request.return_url,
                "notify_url": request.notify_url,
            },
        )
        if answer is None:
            raise PaymentProviderUnavailableError("the payment is not known after creating it")
        try:
            return Checkout(str(answer["id"]), str(answer["checkout_url"]))
        except KeyError as error:
            # Who knows what it did: the same key finds out.
            raise PaymentProviderUnavailableError("an answer without a payment") from error

    async def ask(self, payment_id: int, provider_payment_id: str | None) -> PaymentFact | None:
        """What the bank knows of our payment, by its id or by our order number."""
        if provider_payment_id is not None:
            answer = await self._call("sandbox.ask", "GET", f"/v1/payments/{provider_payment_id}")
        else:
            answer = await self._call("sandbox.ask", "GET", f"/v1/orders/{payment_id}")
        try:
            return None if answer is None else _fact(answer)
        except (KeyError, TypeError, ValueError) as error:
            raise PaymentProviderUnavailableError("an answer that is no payment") from error

    def verify(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Check the signature over the raw bytes and its age, then parse.

        Raises:
            NoticeRefusedError: not signed with our secret, too old, or not a notice.
        """
        unix_seconds, given = _parse_signature(headers.get(SIGNATURE_HEADER, ""))
        expected = _parse_signature(sign_notice(self._secret, unix_seconds, body))[1]
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise NoticeRefusedError("wrong signature")
        if abs(self._clock().timestamp() - unix_seconds) > TOLERANCE_SECONDS:
            raise NoticeRefusedError("stale")
        try:
            content = json.loads(body)
            return Notice(str(content["event_id"]), _fact(content["payment"]))
        except (ValueError, KeyError, TypeError) as error:
            raise NoticeRefusedError("not a notice") from error

    async def close(self) -> None:
        """Give back connections."""
        await self._client.aclose()

    async def _call(
        self,
        call: str,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: dict[str, object] | None = None,
    ) -> dict[str, Any] | None:
        try:
            async with (
                outside_call(call, timeout_seconds=CALL_SECONDS),
                self._client.stream(method, path, headers=headers, json=content) as response,
            ):
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise PaymentProviderUnavailableError("the answer is too long")
        except (httpx.HTTPError, TimeoutError) as error:
            raise PaymentProviderUnavailableError(type(error).__name__) from error
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        if response.is_client_error and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise PaymentRefusedError(f"{response.status_code}")
        if not response.is_success:
            raise PaymentProviderUnavailableError(f"{response.status_code}")
        try:
            answer: Any = json.loads(body)
        except ValueError as error:
            raise PaymentProviderUnavailableError("the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise PaymentProviderUnavailableError("the answer is not an object")
        return cast("dict[str, Any]", answer)


def _parse_signature(header: str) -> tuple[int, str]:
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    try:
        return int(parts["t"]), parts["v1"]
    except (KeyError, ValueError) as error:
        raise NoticeRefusedError("no signature") from error


def _fact(payment: dict[str, Any]) -> PaymentFact:
    return PaymentFact(
        payment_id=int(payment["order_id"]),
        provider_payment_id=str(payment["id"]),
        state=PaidState(payment["status"]),
        price=Money(int(payment["amount_minor"]), str(payment["currency"])),
    )
