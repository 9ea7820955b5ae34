"""How a program that a stand-in has started is ended."""

import asyncio
import contextlib


async def end_process(process: asyncio.subprocess.Process, *, within_seconds: float) -> None:
    """Ask it to end, wait, and insist. A process that is gone already is left alone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(within_seconds):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
