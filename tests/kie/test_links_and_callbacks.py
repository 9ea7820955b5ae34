"""Results are fetched before their links die, and callbacks are doorbells that may have to be signed."""

import base64
import hmac
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from darkroom.adapters.generation.kie import KieTerms
from darkroom.core.tasks import claim_storing
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.watch_providers import watch_providers
from darkroom.ports.generation import GenerationRequest, ProviderUnavailableError, Ready
from tests.edges.serving import application_of, client_of
from tests.kie.conftest import KieShop, events
from tests.shop import Shop

KEY = "webhook-key"


async def _waiting_results(shop: Shop, *, lives_seconds: float) -> None:
    """Pictures that are ready and not fetched yet."""

    async def ready(request: GenerationRequest) -> Ready:
        offset = timedelta(seconds=shop.offset_seconds + lives_seconds)
        return Ready(f"https://results.example/{request.task_id}", 1.0, datetime.now(UTC) + offset)

    shop.provider.on_ask = ready
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await poll_due_tasks(shop.darkroom)


async def test_those_that_die_soon_are_fetched_first_and_the_rest_by_turn(shop: Shop) -> None:
    await _waiting_results(shop, lives_seconds=86_400)
    await shop.advance(600)
    await _waiting_results(shop, lives_seconds=3600)
    await shop.rows(
        "UPDATE kie_tasks SET result_dies_at = NULL, due_at = due_at - INTERVAL '1 minute' "
        "WHERE id = (SELECT min(id) FROM kie_tasks) "
        "RETURNING id"
    )
    async with shop.database.connection() as tx:
        most = {"lease_seconds": 10, "dying_seconds": 21_600}
        first = await claim_storing(tx, limit=5, **most)
        both = await claim_storing(tx, limit=3, **most)
        rest = await claim_storing(tx, limit=20, **most)
    assert max(task.result_left_seconds or 0 for task in first) < 3700
    left = [task.result_left_seconds for task in both]
    assert left[0] is None, "one that does not die is not last for ever: it has been due longest"
    assert len([one for one in left if one is not None and one < 3700]) == 2
    assert len(rest) == 6
    assert all((task.result_left_seconds or 0) > 80_000 for task in rest)
    await shop.drain()


async def test_results_that_fail_do_not_keep_newer_ones_from_being_fetched(shop: Shop) -> None:
    """Older ones die sooner, and were claimed first each time their pause was over."""
    broken = True
    for _ in range(6):
        await _waiting_results(shop, lives_seconds=80_000)
    older = {row["id"] for row in await shop.rows("SELECT id FROM kie_tasks")}
    assert len(older) > 2 * shop.darkroom.limits.batch
    await shop.advance(30)
    await _waiting_results(shop, lives_seconds=86_400)

    async def fetch(request: GenerationRequest) -> bytes | None:
        if broken and request.task_id in older:
            raise ProviderUnavailableError("503")
        return None

    shop.provider.on_fetch = fetch
    for _ in range(4):
        await collect_due_photos(shop.darkroom)
        await shop.advance(61)  # every pause is over
    newer = await shop.rows("SELECT status FROM kie_tasks WHERE NOT id = ANY(%s)", list(older))
    assert {row["status"] for row in newer} == {"completed"}
    broken = False
    await shop.drain()


async def test_no_pause_is_longer_than_a_fifth_of_what_a_link_has_left(shop: Shop) -> None:
    """With its backoff alone, a link with a minute left would see one more try."""
    tries: list[float] = []

    async def not_now(_request: GenerationRequest) -> bytes:
        tries.append(shop.offset_seconds)
        raise ProviderUnavailableError("503")

    await _waiting_results(shop, lives_seconds=100)
    shop.provider.on_fetch = not_now
    await shop.rows("UPDATE kie_tasks SET attempts = 20 RETURNING id")
    began = shop.offset_seconds
    while shop.offset_seconds < began + 95:
        await collect_due_photos(shop.darkroom)
        await shop.advance(1)
    assert len(tries) / 7 >= 8
    shop.provider.on_fetch = None
    await shop.drain()


async def test_a_link_that_dies_soon_is_an_alarm_once_before_it_is_lost(
    shop: Shop, log_lines: list[MutableMapping[str, Any]]
) -> None:
    await _waiting_results(shop, lives_seconds=7 * 3600)
    assert await watch_providers(shop.darkroom) == 0
    await shop.advance(3601)
    assert await watch_providers(shop.darkroom) == 7
    assert REGISTRY.get_sample_value("darkroom_result_links_dying") == 7
    assert events(log_lines) == ["a result's link dies soon"] * 7
    assert await watch_providers(shop.darkroom) == 0, "once"
    while await collect_due_photos(shop.darkroom):
        pass
    await watch_providers(shop.darkroom)
    assert REGISTRY.get_sample_value("darkroom_result_links_dying") == 0
    await shop.drain()


async def test_a_pause_is_shown_with_its_reason_and_gone_after_it(kie_shop: KieShop) -> None:
    shop = kie_shop.shop
    kie_shop.twin.habits.credits_left = 0
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await watch_providers(shop.darkroom)
    labels = {"provider": "kie", "reason": "KIE_402"}
    shown = REGISTRY.get_sample_value("darkroom_provider_paused_seconds", labels)
    assert shown is not None
    assert 50 < shown <= 60
    kie_shop.twin.habits.credits_left = 1000
    await shop.drain()
    await watch_providers(shop.darkroom)
    assert REGISTRY.get_sample_value("darkroom_provider_paused_seconds", labels) is None


async def test_results_whose_links_died_are_stored_by_fresh_ones(kie_shop: KieShop) -> None:
    """Our storage was away for a day: no photo is bought a second time."""
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.asks_to_finish = 1
    twin.habits.result_seconds = 86_400
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.advance(3)
    await poll_due_tasks(shop.darkroom)
    assert set(await shop.statuses()) == {"storing"}
    await twin.advance(90_000)
    await shop.drain()
    assert set(await shop.statuses()) == {"completed"}
    assert (twin.tasks_created, twin.requests["link"], twin.wasted) == (7, 7, [])


async def _signed_shop(kie_shop: KieShop) -> None:
    await kie_shop.use(kie_shop.kie(terms=KieTerms(hmac_key=KEY)))
    await kie_shop.shop.sold()
    await submit_due_tasks(kie_shop.shop.darkroom)


def _signature(task_id: str, *, key: str = KEY, late_seconds: int = 0) -> dict[str, str]:
    stamp = str(int(time.time()) + late_seconds)
    digest = hmac.digest(key.encode(), f"{task_id}.{stamp}".encode(), "sha256")
    return {
        "X-Webhook-Timestamp": stamp,
        "X-Webhook-Signature": base64.b64encode(digest).decode(),
    }


@pytest.mark.parametrize("field", ["taskId", "task_id"])
async def test_a_signed_callback_rings_and_its_body_is_not_believed(
    kie_shop: KieShop, field: str
) -> None:
    """A forged success about a task that is still being made changes nothing."""
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.asks_to_finish = None
    await _signed_shop(kie_shop)
    task = next(iter(twin.tasks.values()))
    body = {"code": 200, "data": {field: task.id, "state": "success", "resultJson": "{}"}}
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            f"/api/webhooks/generation/kie/{task.token}", json=body, headers=_signature(task.id)
        )
    assert answer.status_code == 200
    assert await shop.value("SELECT count(*) FROM inbox") == 1
    await shop.round()
    assert set(await shop.statuses()) == {"pending"}
    twin.habits.asks_to_finish = 1
    await shop.drain()


@pytest.mark.parametrize(
    "spoil", ["unsigned", "other key", "other task", "old", "future", "odd"], ids=str
)
async def test_a_callback_that_kie_did_not_sign_just_now_is_refused_and_not_kept(
    kie_shop: KieShop, spoil: str
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await _signed_shop(kie_shop)
    task = next(iter(twin.tasks.values()))
    headers = {
        "unsigned": {},
        "other key": _signature(task.id, key="another"),
        "other task": _signature(uuid4().hex),
        "old": _signature(task.id, late_seconds=-302),
        "future": _signature(task.id, late_seconds=302),
        "odd": {"X-Webhook-Timestamp": "now", "X-Webhook-Signature": "!"},
    }[spoil]
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            f"/api/webhooks/generation/kie/{task.token}",
            json={"data": {"taskId": task.id}},
            headers=headers,
        )
    assert answer.status_code == 401
    assert await shop.value("SELECT count(*) FROM inbox") == 0
    await shop.drain()


async def test_the_stand_ins_own_signature_opens_the_door(kie_shop: KieShop) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.hmac_key = KEY
    twin.habits.asks_to_finish = None
    await _signed_shop(kie_shop)
    kie_shop.serve()
    await twin.finish(next(iter(twin.tasks)))
    twin.habits.hmac_key = "another"
    await twin.finish(list(twin.tasks)[1])
    assert twin.callbacks == [200, 401]
    twin.habits.asks_to_finish = 1
    await shop.drain()


async def test_without_a_key_the_token_in_the_address_is_enough(kie_shop: KieShop) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.asks_to_finish = None
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await twin.finish(next(iter(twin.tasks)))
    assert twin.callbacks == [200]
    twin.habits.asks_to_finish = 1
    await shop.drain()
