"""The processes of a design: started, killed, and started again, as any supervisor would."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from darkroom.torture.design import CALM_LIFE, Design, Surroundings

RESTART_SECONDS: Final = 0.5
"""A supervisor's usual pause before it starts again what died."""


@dataclass(slots=True)
class _Slot:
    """A place in the fleet and who is in it now."""

    role: str
    number: int
    births: int = 0
    process: asyncio.subprocess.Process | None = None


class Fleet:
    """The server and the workers.

    Attributes:
        deaths: how often a process of each role ended, by our hand or its own.
    """

    def __init__(
        self,
        design: Design,
        places: Surroundings,
        *,
        workers: int,
        seed: int,
        is_calm: bool = False,
    ) -> None:
        self._design = design
        self._places = places
        self._seed = seed
        self._is_calm = is_calm
        self._slots = [_Slot("server", 0), *(_Slot("worker", n) for n in range(workers))]
        self._leaving = False
        self.deaths: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep all slots filled while the block runs; end every process after it."""
        keeping = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        try:
            yield
        finally:
            self._leaving = True
            for slot in self._slots:
                _kill(slot)
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    def kill(self, role: str, number: int) -> bool:
        """SIGKILL whoever is in that slot. False: nobody is."""
        for slot in self._slots:
            if (slot.role, slot.number) == (role, number):
                return _kill(slot)
        return False

    def freeze(self, number: int, seconds: float) -> bool:
        """Let a worker stand still for so long, in the middle of whatever it does. False: nobody is there."""
        for slot in self._slots:
            if (slot.role, slot.number) == ("worker", number) and _signal(slot, signal.SIGSTOP):
                thaw = asyncio.get_running_loop().call_later
                thaw(seconds, _signal, slot, signal.SIGCONT, slot.process)
                return True
        return False

    def alive(self, role: str) -> int:
        """How many processes of a role run now."""
        return sum(
            slot.role == role and slot.process is not None and slot.process.returncode is None
            for slot in self._slots
        )

    def pids(self, role: str) -> list[int]:
        """The processes of a role that run now, by slot."""
        return [
            slot.process.pid
            for slot in self._slots
            if slot.role == role and slot.process is not None and slot.process.returncode is None
        ]

    async def _keep(self, slot: _Slot) -> None:
        log = self._places.folder / f"{slot.role}-{slot.number}.log"
        while not self._leaving:
            slot.births += 1
            life = f"{self._seed}/{slot.role}/{slot.number}/{slot.births}"
            if self._is_calm:
                life = CALM_LIFE
            with log.open("ab") as out:
                slot.process = await asyncio.create_subprocess_exec(
                    *self._design.command(self._places, slot.role, life=life),
                    env={**os.environ, **self._design.environment(self._places)},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            try:
                await slot.process.wait()
            finally:
                if slot.process.returncode is None:
                    _kill(slot)
                    await slot.process.wait()
            self.deaths[slot.role] += 1
            await asyncio.sleep(RESTART_SECONDS)


def _kill(slot: _Slot) -> bool:
    return _signal(slot, signal.SIGKILL)


def _signal(
    slot: _Slot, number: signal.Signals, only: asyncio.subprocess.Process | None = None
) -> bool:
    """To whoever is in the slot, if it is still `only` where that is named. False: to nobody."""
    process = slot.process
    if process is None or process.returncode is not None or (only or process) is not process:
        return False
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    return True
