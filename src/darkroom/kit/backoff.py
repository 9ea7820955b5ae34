"""Growing pauses with jitter."""

import random
from typing import Final

_RANDOM: Final = random.SystemRandom()


def backoff_seconds(attempts: int, *, base_seconds: float, cap_seconds: float) -> float:
    """The pause before try number `attempts + 1`: base, doubled each time, capped, +-25 % jitter.

    The jitter keeps a crowd that failed together from coming back together.
    """
    exponent = min(max(attempts, 0), 30)
    pause = min(cap_seconds, base_seconds * (2**exponent))
    return pause * _RANDOM.uniform(0.75, 1.25)
