"""The outside of a shop on loopback: kie.ai, QStash, an S3 server, a bank, and what points Darkroom at them."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.twin.bank import SandboxBank
from darkroom.twin.bank_books import BankHabits
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits as KieHabits
from darkroom.twin.kie_faults import Painter
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_faults import Habits as QStashHabits
from darkroom.twin.seaweed import SeaweedServer, seaweed


@dataclass(frozen=True, slots=True)
class TownHabits:
    """How the outside behaves. A rate is a share of requests."""

    seed: int = 1
    fault_rate: float = 0
    generation_seconds: float = 4
    queue_time_scale: float = 1
    painter: Painter | None = None


@dataclass(slots=True)
class Town:
    """Everything outside, running.

    Attributes:
        secret: of the bank, of callbacks and of cron: each its own.
    """

    kie: KieTwin
    queue: QStashTwin
    store: SeaweedServer
    bank: SandboxBank
    bank_url: str
    secrets: dict[str, str] = field(repr=False)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.kie.habits.fault_rate = self.queue.habits.fault_rate = 0

    def variables(self, public_url: str) -> dict[str, str]:
        """What a Darkroom that is reached at `public_url` is to be started with."""
        return {
            "DARKROOM_MODE": "demo",
            "DARKROOM_PUBLIC_URL": public_url,
            "DARKROOM_GENERATION_PROVIDER": "kie",
            "DARKROOM_ALLOW_PRIVATE_DOWNLOADS": "true",
            "KIE_API_KEY": self.kie.habits.api_key,
            "KIE_BASE_URL": self.kie.base_url,
            "KIE_WEBHOOK_HMAC_KEY": self.secrets["callbacks"],
            "DARKROOM_STORAGE_URL": f"s3://{self.store.bucket}",
            "S3_ENDPOINT": self.store.endpoint,
            "S3_ACCESS_KEY_ID": self.store.access_key_id,
            "S3_SECRET_ACCESS_KEY": self.store.secret_access_key,
            "QSTASH_URL": self.queue.base_url,
            "QSTASH_TOKEN": self.queue.habits.token,
            "QSTASH_CURRENT_SIGNING_KEY": self.queue.habits.current_key,
            "QSTASH_NEXT_SIGNING_KEY": self.queue.habits.next_key,
            "DARKROOM_SANDBOX_URL": self.bank_url,
            "DARKROOM_SANDBOX_SECRET": self.secrets["bank"],
            "CRON_SECRET": self.secrets["cron"],
        }


@asynccontextmanager
async def open_town(folder: Path, habits: TownHabits) -> AsyncGenerator[Town]:
    """Start every stand-in; end them, and nothing else, when the block ends."""
    kept = {name: secrets.token_hex(16) for name in ("bank", "callbacks", "cron")}
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(seaweed(folder / "store"))
        kie = await stack.enter_async_context(kie_twin(_kie_habits(habits, kept["callbacks"])))
        queue = await stack.enter_async_context(
            qstash_twin(
                QStashHabits(
                    seed=habits.seed,
                    fault_rate=habits.fault_rate,
                    time_scale=habits.queue_time_scale,
                )
            )
        )
        bank = SandboxBank(
            secret=kept["bank"],
            file=folder / "bank.sqlite",
            public_url="http://127.0.0.1/",
            habits=BankHabits(seed=habits.seed, silent_share=habits.fault_rate),
        )
        await stack.enter_async_context(bank.running())
        bank_url = await stack.enter_async_context(loopback(bank.app))
        bank.public_url = bank_url
        yield Town(kie, queue, store, bank, bank_url, kept)


def _kie_habits(habits: TownHabits, hmac_key: str) -> KieHabits:
    return KieHabits(
        seed=habits.seed,
        fault_rate=habits.fault_rate,
        seconds_to_finish=habits.generation_seconds,
        reads_references=True,
        hmac_key=hmac_key,
        painter=habits.painter,
    )
