"""Promise 4: a photo counts only when its bytes are ours, hashed and decodable, with its row, task and job."""

import hashlib
from dataclasses import replace
from pathlib import Path

from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.recognize_store import MARK_KEY
from darkroom.flow.submit_tasks import submit_due_tasks
from tests.shop import Shop


async def test_every_row_points_at_its_bytes(shop: Shop) -> None:
    await shop.sold()
    await shop.drain()
    for photo in await shop.rows("SELECT * FROM generated_photos"):
        data = await shop.darkroom.store.get(photo["object_key"])
        assert hashlib.sha256(data).hexdigest() == photo["sha256"]
        assert len(data) == photo["size_bytes"]
        assert photo["object_key"].endswith(f"-{photo['sha256'][:16]}.jpg")
        assert photo["image_url"] == f"/api/photos/{photo['id']}/image"


async def test_photo_task_job_and_chat_row_commit_together(shop: Shop) -> None:
    shop.darkroom = replace(shop.darkroom, chat_enabled=True)
    _, job = await shop.sold()
    for step in (submit_due_tasks, poll_due_tasks):
        await step(shop.darkroom)
    assert (await shop.job(job.id))["completed_photos"] == 0
    await collect_due_photos(shop.darkroom)
    row = await shop.job(job.id)
    photos = await shop.value("SELECT count(*) FROM generated_photos")
    chat = await shop.value("SELECT count(*) FROM telegram_message_queue WHERE status = 'pending'")
    assert row["completed_photos"] == photos == chat == 7
    await shop.drain()


async def test_nothing_of_a_provider_stands_in_a_result(shop: Shop) -> None:
    """bugbook C15: the provider's address was saved as the final photo, and died."""
    await shop.sold()
    await shop.drain()
    urls = await shop.rows("SELECT image_url, object_key FROM generated_photos")
    assert not any("example" in str(row) or "://" in str(row) for row in urls)


async def test_the_objects_in_storage_are_exactly_the_photos_their_thumbnails_and_the_selfies(
    shop: Shop, tmp_path: Path
) -> None:
    """bugbook C16, bugbook B25: orphans under random keys; selfies uploaded again for every task."""
    await shop.sold()
    await shop.drain()
    stored = [path.as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    stored = [path for path in stored if not path.endswith(f"/{MARK_KEY}")]
    rows = await shop.rows(
        "SELECT object_key AS key FROM generated_photos "
        "UNION ALL SELECT thumbnail_key FROM generated_photos "
        "UNION ALL SELECT object_key FROM reference_photos"
    )
    assert len(stored) == len(rows) == 7 + 7 + 1
    assert all(any(path.endswith(f"/{row['key']}") for path in stored) for row in rows)


async def test_the_chat_gets_each_photo_of_each_set_once(shop: Shop) -> None:
    """bugbook F2: every new set sent the whole history of its avatar again."""
    shop.darkroom = replace(shop.darkroom, chat_enabled=True)
    customer, first = await shop.sold()
    await shop.drain()
    await shop.paid(customer)
    second = await shop.start(customer)
    await shop.drain()
    rows = await shop.rows(
        "SELECT q.job_id, count(*) AS messages, count(DISTINCT q.photo_id) AS photos "
        "FROM telegram_message_queue q JOIN generated_photos p "
        "ON p.id = q.photo_id AND p.job_id = q.job_id GROUP BY 1 ORDER BY 1"
    )
    assert rows == [{"job_id": job.id, "messages": 7, "photos": 7} for job in (first, second)]
