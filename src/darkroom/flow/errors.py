"""What a customer's request can be refused with. Edges turn these into envelopes."""

from typing import Any

from darkroom.kit.email_address import normal_email


class RequestRefusedError(Exception):
    """A request that changes nothing.

    Attributes:
        status: the HTTP status.
        code: stable, for programs.
        message: for people; never a stack, never a secret.
        details: more for programs; `code` is repeated there.
    """

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:  # noqa: ANN401 - JSON
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.details: dict[str, Any] = {"code": code, **details}


def unauthorized() -> RequestRefusedError:
    """Nobody signed this request."""
    return RequestRefusedError(401, "UNAUTHORIZED", "Sign in to continue")


def not_found(what: str) -> RequestRefusedError:
    """No such row, or somebody else's: the same answer."""
    return RequestRefusedError(404, f"{what.upper()}_NOT_FOUND", f"No such {what}")


def refuse_without_selfies(selfies: int, good_selfies: int, *, needs_good: bool) -> None:
    """Raise RequestRefusedError where nothing can be made of an avatar's selfies, before anybody pays."""
    if selfies == 0:
        raise RequestRefusedError(400, "NO_REFERENCE_IMAGES", "Add at least one photo of yourself")
    if needs_good and good_selfies == 0:
        raise RequestRefusedError(
            400, "NO_GOOD_SELFIE", "Add a photo of yourself that has no severe warning"
        )


def payment_required() -> RequestRefusedError:
    """No payment that could pay for this."""
    return RequestRefusedError(
        402, "PAYMENT_REQUIRED", "Please complete payment before generating photos"
    )


def payment_consumed(job_id: int | None) -> RequestRefusedError:
    """The payment has its job already."""
    return RequestRefusedError(
        402,
        "PAYMENT_CONSUMED",
        "Ваш платёж уже использован. Для новой генерации необходима новая оплата.",
        jobId=job_id,
    )


def checked_email(text: str) -> str:
    """An address in the one form we keep. Raises RequestRefusedError 400."""
    try:
        return normal_email(text)
    except ValueError as error:
        raise RequestRefusedError(400, "INVALID_EMAIL", "This is no e-mail address") from error


def key_reused() -> RequestRefusedError:
    """The same Idempotency-Key with another body."""
    return RequestRefusedError(
        409, "IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was used with another request"
    )
