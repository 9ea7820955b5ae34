"""The built-in studio as a generation provider: pure work in processes of its own.

A task's picture is a function of the request, so nothing has to be remembered between calls: whoever
holds the lease renders it, and a crash costs the rendering, never a second photo.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from darkroom.adapters.generation.studio.render import RenderOrder, StudioError, render
from darkroom.adapters.processes import OwnProcesses, ProcessLostError, enter_process
from darkroom.kit.log import get_logger
from darkroom.kit.outside import assert_no_transaction
from darkroom.ports.generation import (
    Adoption,
    Again,
    BadResultError,
    Created,
    FailedThere,
    GenerationRequest,
    ProviderUnavailableError,
    Ready,
    Working,
)
from darkroom.ports.storage import ObjectMissingError, ObjectStore, StorageUnavailableError

log = get_logger("adapters")

RENDER_SECONDS: Final = 30.0
"""0.6 s on an idle machine, 4.6 s the worst seen on a busy one (local-provider 5)."""
RENDERED_KEPT: Final = 64
"""Rendered photos waiting to be collected: at most a few batches, about 170 KB each."""
TASKS_PER_PROCESS: Final = 200
"""A process is replaced after this many photos, so that a leak in native code stays small."""


class StudioProvider:
    """Photos composed on this machine's CPU from the customer's own pixels."""

    name = "studio"
    account = "studio"
    model = "studio"
    price_credits: float | None = None
    day_credits_max: float | None = None
    create_is_idempotent = True
    needs_good_selfie = True
    call_seconds = RENDER_SECONDS
    fetch_seconds = RENDER_SECONDS
    first_ask_seconds = 0.0
    window_requests: int | None = None
    window_seconds = 10.0

    def __init__(self, store: ObjectStore, *, processes: int) -> None:
        self._store = store
        self._processes = OwnProcesses(
            "studio.render",
            processes=processes,
            seconds=RENDER_SECONDS,
            works_per_process=TASKS_PER_PROCESS,
            enter=enter_process,
        )
        self._rendered: OrderedDict[str, bytes] = OrderedDict()

    async def create(self, request: GenerationRequest) -> Created:
        """Accept the task. Nothing is spent until somebody asks for the picture."""
        assert_no_transaction("studio.create")
        return Created(f"studio-{request.token.hex}")

    async def ask(
        self, request: GenerationRequest, provider_task_id: str
    ) -> Working | Ready | FailedThere:
        """Render the picture, unless this process has it already.

        Raises:
            ProviderUnavailableError: the selfies could not be read, or the process died or took too long.
        """
        try:
            await self._render(request, provider_task_id)
        except StudioError as error:
            return FailedThere(str(error.code), str(error), Again.NEVER)
        return Ready(f"studio:{provider_task_id}")

    async def fetch(
        self,
        request: GenerationRequest,
        provider_task_id: str,
        result_url: str,  # noqa: ARG002 - the picture is made again where it is not at hand
    ) -> bytes:
        """The picture's bytes: the same ones, whichever process makes them."""
        try:
            return await self._render(request, provider_task_id)
        except StudioError as error:
            raise BadResultError(str(error)) from error

    async def whose(self, provider_task_id: str) -> Adoption | None:  # noqa: ARG002
        """The studio calls nobody back."""
        assert_no_transaction("studio.whose")
        return None

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    async def _render(self, request: GenerationRequest, provider_task_id: str) -> bytes:
        ready = self._rendered.get(provider_task_id)
        if ready is not None:
            return ready
        selfies = await self._read_selfies(request)
        order = RenderOrder(
            prompt=request.prompt,
            style_id=request.style_id,
            place=request.place,
            seed=request.seed,
            take=request.take,
        )
        try:
            data = await self._processes.run(_render_in_process, order, selfies)
        except ProcessLostError as error:
            raise ProviderUnavailableError(str(error)) from error
        self._rendered[provider_task_id] = data
        while len(self._rendered) > RENDERED_KEPT:
            self._rendered.popitem(last=False)
        return data

    async def _read_selfies(self, request: GenerationRequest) -> list[bytes]:
        try:
            return [await self._store.get(reference.object_key) for reference in request.references]
        except (ObjectMissingError, StorageUnavailableError) as error:
            raise ProviderUnavailableError(f"selfies: {error}") from error


def _render_in_process(order: RenderOrder, selfies: Sequence[bytes]) -> bytes:
    return render(order, selfies).data
