"""The sandbox way to pay: a bank that takes no money, over the same road as the real ones.

Requests carry a bearer secret and an idempotency key; notices are signed over their raw bytes with a
time, as Stripe does it (external-apis 5.2).
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, cast

import httpx

from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.outside import outside_call
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    Checkout,
    LedgerLine,
    LedgerPage,
    MoneyBackNotice,
    Notice,
    NoticeRefusedError,
    PaidState,
    PaymentFact,
    PaymentMoney,
    PaymentProviderUnavailableError,
    PaymentRefusedError,
    PaymentRequest,
    RefundAlready,
    RefundAnswer,
    RefundCall,
    RefundDone,
    RefundFact,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
    RefundState,
    RefundUnderWay,
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
    """The sandbox bank's client.

    Args:
        receipts: whether it is to want an address for each receipt, as real banks may have to.
    """

    name = "sandbox"
    currency = "RUB"
    notice_reply = "OK"
    refund_forms = RefundForms.PARTIAL
    refund_key_seconds: float | None = 86_400

    def __init__(
        self, *, base_url: str, secret: str, receipts: bool = False, clock: Clock = system_clock
    ) -> None:
        self.receipt_email_needed = receipts
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
                **_receipt(request.receipt_email),
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

    async def refund(self, call: RefundCall) -> RefundAnswer:
        """Pay back under a key that the bank remembers for a day."""
        try:
            status, answer = await self._exchange(
                "sandbox.refund",
                "POST",
                "/v1/refunds",
                headers={"Idempotency-Key": call.key},
                content={
                    "payment_id": call.provider_payment_id,
                    "amount_minor": call.amount.amount_minor,
                    "currency": call.amount.currency,
                    "title": call.title,
                    **_receipt(call.receipt_email),
                },
            )
        except PaymentProviderUnavailableError as error:
            return RefundNoAnswer(str(error))
        return _refund_answer(status, answer, call.amount.currency)

    async def read_refunds(self, money: PaymentMoney) -> tuple[RefundFact, ...]:
        """Every refund of this payment in the bank's books."""
        path = f"/v1/payments/{money.provider_payment_id}/refunds"
        try:
            answer = await self._call("sandbox.read_refunds", "GET", path)
            rows = [] if answer is None else list(answer["refunds"])
            return tuple(_refund_fact(row, money.price.currency) for row in rows)
        except PaymentRefusedError as error:
            raise PaymentProviderUnavailableError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PaymentProviderUnavailableError("an answer that is no list") from error

    async def read_ledger(self, since: datetime, until: datetime, cursor: str | None) -> LedgerPage:
        """A page of the bank's own list of moves."""
        span = f"since={since.timestamp()}&until={until.timestamp()}&after={cursor or 0}"
        try:
            answer = await self._call("sandbox.read_ledger", "GET", f"/v1/moves?{span}")
            if answer is None:
                raise PaymentProviderUnavailableError("the bank has no list")
            following = answer["next"]
            return LedgerPage(
                tuple(_ledger_line(row) for row in answer["moves"]),
                None if following is None else str(following),
            )
        except PaymentRefusedError as error:
            raise PaymentProviderUnavailableError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PaymentProviderUnavailableError("an answer that is no list") from error

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
            payment = content["payment"]
            if int(payment.get("returned_minor", 0)) > 0:
                notice = MoneyBackNotice(int(payment["order_id"]), str(payment["id"]))
                return Notice(str(content["event_id"]), notice)
            return Notice(str(content["event_id"]), _fact(payment))
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
        """A call whose refusal is an error; None: not found."""
        status, answer = await self._exchange(call, method, path, headers=headers, content=content)
        if status == HTTPStatus.NOT_FOUND:
            return None
        refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        if refused and status != HTTPStatus.TOO_MANY_REQUESTS:
            raise PaymentRefusedError(f"{status}")
        if status >= HTTPStatus.BAD_REQUEST:
            raise PaymentProviderUnavailableError(f"{status}")
        return answer

    async def _exchange(
        self,
        call: str,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: dict[str, object] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The status and the object of an answer. Raises PaymentProviderUnavailableError where none came."""
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
        try:
            answer: Any = json.loads(body)
        except ValueError as error:
            if response.is_error:
                return response.status_code, {}
            raise PaymentProviderUnavailableError("the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise PaymentProviderUnavailableError("the answer is not an object")
        return response.status_code, cast("dict[str, Any]", answer)


def _receipt(email: str | None) -> dict[str, object]:
    return {} if email is None else {"receipt_email": email}


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


_LATER: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Refusals of the call, not of the refund: our key is wrong today, or we are too fast."""


def _refund_answer(status: int, answer: dict[str, Any], currency: str) -> RefundAnswer:
    code = str(answer.get("error", status))
    match status:
        case HTTPStatus.CREATED:
            try:
                fact = _refund_fact(answer, currency)
            except (KeyError, TypeError, ValueError):
                return RefundNoAnswer("an answer that is no refund")
            if fact.state is RefundState.DONE:
                return RefundDone(fact.provider_refund_id, fact.amount)
            return RefundUnderWay()
        case _ if code == "already_refunded":
            return RefundAlready(code, "the whole payment went back already")
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RefundRefused(code, f"the bank answered {status}", later=status in _LATER)
        case _:
            return RefundNoAnswer(code)


_REFUND_STATES: Final = {
    "done": RefundState.DONE,
    "pending": RefundState.UNDER_WAY,
    "refused": RefundState.REFUSED,
}


def _refund_fact(refund: dict[str, Any], currency: str) -> RefundFact:
    key = refund["key"]
    return RefundFact(
        provider_refund_id=str(refund["id"]),
        amount=Money(int(refund["amount_minor"]), currency),
        state=_REFUND_STATES[refund["status"]],
        key=None if key is None else str(key),
        is_chargeback=bool(refund["is_chargeback"]),
    )


def _ledger_line(move: dict[str, Any]) -> LedgerLine:
    refund_id = move["refund_id"]
    return LedgerLine(
        provider_payment_id=str(move["payment_id"]),
        payment_id=int(move["order_id"]),
        provider_refund_id=None if refund_id is None else str(refund_id),
        amount=Money(int(move["amount_minor"]), str(move["currency"])),
        moved_at=datetime.fromtimestamp(float(move["moved_at"]), UTC),
    )
