"""What is promised, for everybody to read before they pay."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from darkroom.edges.api import Joined
from darkroom.edges.envelope import success
from darkroom.flow.read_policy import read_promised

router = APIRouter(prefix="/api", tags=["customer"])


@router.get("/policy")
async def show_policy(darkroom: Joined) -> JSONResponse:
    """What becomes of money and of pictures, in numbers and in two languages. No sign-in is needed."""
    promised = await read_promised(darkroom)
    policy = promised.policy
    return success(
        {
            "selfieDays": promised.selfie_days,
            "wholePriceBelowPercent": policy.whole_price_below_percent,
            "jobDeadlineSeconds": policy.job_deadline_seconds,
            "unusedRemindDays": policy.unused_remind_days,
            "unusedRefundDays": policy.unused_refund_days,
            "lateMoney": policy.late_money,
            "withoutPartial": policy.without_partial,
            "redoPhotos": policy.redo_photos,
            "textRu": promised.text.ru,
            "textEn": promised.text.en,
        }
    )
