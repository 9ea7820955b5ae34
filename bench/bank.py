"""The sandbox bank in a process of its own, as banks are: its books' disk and its calls are not our waiting.

Run as `python -m bench.bank FILE SECRET`; prints its address, stops at SIGTERM.
"""

import asyncio
import logging
import signal
import sys
from pathlib import Path

from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop
from darkroom.twin.bank import SandboxBank
from darkroom.twin.loopback import loopback


async def _main(file: str, secret: str) -> None:
    configure_logging("json", level=logging.ERROR)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bank = SandboxBank(secret=secret, file=Path(file), public_url="")
    async with bank.running(), loopback(bank.app) as address:
        bank.public_url = address
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:]))
