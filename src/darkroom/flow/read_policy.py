"""What a buyer is promised, in numbers and in words."""

from dataclasses import dataclass

from darkroom.core.refund_policy import RefundPolicy, load_policy
from darkroom.flow.customer_texts import Text, policy_text
from darkroom.flow.darkroom import Darkroom


@dataclass(frozen=True, slots=True)
class Promised:
    """The policy of today, how long selfies stay, and both in the customer's languages."""

    policy: RefundPolicy
    selfie_days: int
    text: Text


async def read_promised(darkroom: Darkroom) -> Promised:
    """What a payment opened now is sold under. What was sold before keeps its own policy."""
    async with darkroom.database.connection() as tx:
        policy = await load_policy(tx)
    text = policy_text(policy, selfie_days=darkroom.selfie_days)
    return Promised(policy, darkroom.selfie_days, text)
