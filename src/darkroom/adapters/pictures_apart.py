"""A picture that may have killed whoever opened it, opened in a process of its own."""

from collections.abc import Callable
from typing import Final

from darkroom.adapters.intake import WORKING_BYTES, limit_memory
from darkroom.adapters.processes import OwnProcesses, ProcessLostError, enter_process
from darkroom.adapters.thumbnails import develop_now
from darkroom.ports.generation import BadResultError, ProviderUnavailableError
from darkroom.ports.pictures import Developed

DEVELOP_SECONDS: Final = 30
"""As a selfie's: a second or two, eight times as long on a busy machine."""
PICTURES_PER_PROCESS: Final = 100
"""A process is replaced after this many, so that a leak in native code stays small."""


def enter_apart() -> None:
    """Begin a child: with little memory, and never outliving its parent."""
    enter_process()
    limit_memory(WORKING_BYTES)


class DeveloperApart:
    """Opens one suspicious picture at a time. Nothing is started before the first.

    Args:
        seconds: the limit for a process to start, and for one picture.
        work: what is done there with its bytes.
    """

    def __init__(
        self,
        *,
        seconds: float = DEVELOP_SECONDS,
        work: Callable[[bytes], Developed] = develop_now,
    ) -> None:
        self._work = work
        self._processes = OwnProcesses(
            "picture.apart",
            processes=1,
            seconds=seconds,
            works_per_process=PICTURES_PER_PROCESS,
            enter=enter_apart,
        )

    async def develop(self, data: bytes) -> Developed:
        """As `thumbnails.develop`.

        Raises:
            BadResultError: as there; also when its process died of it, or it took too long.
            ProviderUnavailableError: no process can be started here, which is no picture's fault.
        """
        try:
            # Whatever cannot start, or was ended while it had nothing to do, is found out without the picture.
            await self._processes.run(len, b"")
        except ProcessLostError as error:
            raise ProviderUnavailableError(f"no process for a picture: {error}") from error
        try:
            return await self._processes.run(self._work, data)
        except ProcessLostError as error:
            raise BadResultError(str(error)) from error
        except MemoryError as error:
            raise BadResultError("it takes too much memory") from error

    async def close(self) -> None:
        """End the process."""
        await self._processes.close()
