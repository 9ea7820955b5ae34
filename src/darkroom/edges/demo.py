"""`darkroom demo`: one whole order, over the real HTTP doors, with a live view and the audit at the end."""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from darkroom.adapters.contact_sheet import make_contact_sheet
from darkroom.config import IsolatedSettings
from darkroom.core.audit import run_audit
from darkroom.db.migrate import migrate
from darkroom.edges.serve import listen_on_free_port, make_server
from darkroom.edges.terminal import Wires, console, errors, show_report
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.place_dev_order import place_dev_order
from darkroom.flow.prepare import prepare
from darkroom.kit.log import configure_logging

CUSTOMER: Final = 1001
AVATAR: Final = 1
ORDER_SECONDS: Final = 300
"""The largest set, 23 photos, on a machine ten times slower than the one it was measured on."""
LOOK_SECONDS: Final = 0.25
_LEVEL_ERROR: Final = 40
_OPEN: Final = ("pending", "processing")


@dataclass(frozen=True, slots=True)
class Shop:
    """A running Darkroom and a customer's way to it."""

    darkroom: Darkroom
    client: httpx.AsyncClient


class DemoFailedError(Exception):
    """The order did not come to its end; the text says where."""


async def run_demo(wires: Wires, *, tier: str, style: str, folder: Path) -> int:
    """Sell one set to a bundled portrait, on a database of its own that is removed afterwards.

    Returns the exit code: 0 when every photo is in `folder` and the audit is clean.
    """
    configure_logging("console", level=_LEVEL_ERROR)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="darkroom-demo-", ignore_cleanup_errors=True) as place:
        try:
            async with _open_shop(wires, Path(place)) as shop:
                job = await _sell(shop, tier=tier, style=style)
                photos = await _download(shop, job)
                _write(folder, photos)
                console.print(
                    f"[bold]{len(photos)}[/bold] photos and contact-sheet.jpg in "
                    f"[bold]{folder}/[/bold], {time.monotonic() - began:.0f} s in all"
                )
                report = await run_audit(shop.darkroom.database)
                show_report(report)
                whole = len(photos) == job["totalPhotos"] == report.photos
                return 0 if report.clean and whole else 1
        except (DemoFailedError, httpx.HTTPError) as error:
            errors.print(f"[red]demo failed:[/red] {error}")
            return 1


@asynccontextmanager
async def _open_shop(wires: Wires, place: Path) -> AsyncGenerator[Shop]:
    listening = listen_on_free_port()
    port = listening.getsockname()[1]
    settings = IsolatedSettings.model_validate(
        {"DARKROOM_MODE": "demo", "DARKROOM_DATA_DIR": place, "DARKROOM_PORT": port}
    )
    console.print("starting PostgreSQL and Darkroom ...", end=" ")
    async with wires.open_darkroom(settings) as darkroom, wires.open_mounts(settings) as mounts:
        await migrate(darkroom.database)
        await prepare(darkroom, wires.bundled_catalog())
        await place_dev_order(
            darkroom,
            telegram_user_id=CUSTOMER,
            avatar_id=AVATAR,
            tier_id=None,
            selfie=wires.bundled_portrait(),
        )
        application = wires.build_application(
            darkroom, settings, worker=Worker(darkroom), mounts=mounts
        )
        server = make_server(application, settings)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                params={"telegramUserId": CUSTOMER},
                timeout=30,
                trust_env=False,
            ) as client:
                await _wait_until_up(client, serving)
                console.print("ready")
                yield Shop(darkroom, client)
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            listening.close()


async def _wait_until_up(client: httpx.AsyncClient, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(30):
        while not serving.done():
            try:
                await client.get("/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    raise DemoFailedError("the server did not start")


async def _sell(shop: Shop, *, tier: str, style: str) -> dict[str, Any]:
    """Order, pay at the sandbox bank as a customer would, and watch the photos come."""
    body = {"tierId": tier, "avatarId": AVATAR, "styleId": style}
    payment = _data(
        await shop.client.post("/api/payments", json=body, headers={"Idempotency-Key": "demo"})
    )
    price = f"{payment['amountMinor'] / 100:.0f} {payment['currency']}"
    console.print(f"order {payment['paymentId']}: {payment['photoCount']} photos, {price}")
    paid = await shop.client.post(f"{payment['checkoutUrl']}/pay")
    if not paid.is_redirect:
        raise DemoFailedError("the sandbox bank did not take the payment")
    console.print("paid at the sandbox bank; its signed notice starts the set")
    with Progress(
        TextColumn("photos stored"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("photos", total=payment["photoCount"])
        async with asyncio.timeout(ORDER_SECONDS):
            while True:
                job = await _job_of(shop, payment["paymentId"])
                if job is not None:
                    progress.update(bar, completed=job["completedPhotos"])
                    if job["status"] not in _OPEN:
                        return job
                await asyncio.sleep(LOOK_SECONDS)


async def _job_of(shop: Shop, payment_id: int) -> dict[str, Any] | None:
    payment = _data(await shop.client.get(f"/api/payments/{payment_id}"))
    if payment["jobId"] is None:
        return None
    return _data(await shop.client.get(f"/api/jobs/{payment['jobId']}"))


async def _download(shop: Shop, job: dict[str, Any]) -> list[tuple[str, bytes]]:
    page = _data(await shop.client.get(f"/api/avatars/{job['avatarId']}/photos"))
    photos: list[tuple[str, bytes]] = []
    for photo in sorted(page["photos"], key=lambda one: one["promptIndex"]):
        link = httpx.URL(photo["imageUrl"])
        # The client's own parameters would take the place of the link's.
        image = await shop.client.get(link, params=dict(link.params))
        image.raise_for_status()
        photos.append((f"{photo['promptIndex'] + 1:02}.jpg", image.content))
    return photos


def _write(folder: Path, photos: list[tuple[str, bytes]]) -> None:
    if folder.exists():
        for old in folder.glob("*.jpg"):
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in photos:
        (folder / name).write_bytes(data)
    if photos:
        sheet = make_contact_sheet([data for _, data in photos])
        (folder / "contact-sheet.jpg").write_bytes(sheet)


def _data(response: httpx.Response) -> dict[str, Any]:
    answer: dict[str, Any] = response.json()
    if not answer.get("success"):
        raise DemoFailedError(f"{response.request.url.path}: {answer.get('error')}")
    data: dict[str, Any] = answer["data"]
    return data
