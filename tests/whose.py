"""Whose picture a photo is, by what the scripted provider was asked for and gave out."""

from tests.shop import Shop

MADE = """
SELECT a.token::TEXT AS token, a.provider_task_id, t.avatar_id, t.prompt, g.id AS photo_id, g.sha256
FROM task_attempts a JOIN kie_tasks t ON t.id = a.task_id
LEFT JOIN generated_photos g ON g.attempt_id = a.id
WHERE a.provider = %s
"""


async def strangers_pictures(shop: Shop) -> list[str]:
    """What is somebody else's: asked for with others' selfies, or kept as a photo it was not made for.

    Attempts that the provider never heard of are passed over: tests write those themselves.
    """
    rows = await shop.rows(MADE, shop.provider.name)
    by_token = {row["token"]: row for row in rows}
    found: list[str] = []
    for theirs, request in shop.provider.created.items():
        row = by_token.get(str(request.token))
        if row is None:
            continue
        own = f"references/{row['avatar_id']}/"
        if not all(one.object_key.startswith(own) for one in request.references):
            found.append(f"{theirs} was asked for with another's selfies")
        if request.prompt != row["prompt"]:
            found.append(f"{theirs} was asked for with another prompt")
    given = shop.provider.given
    found += [
        f"photo {row['photo_id']} is not the picture of {row['provider_task_id']}"
        for row in rows
        if row["photo_id"] is not None
        and row["provider_task_id"] in given
        and row["sha256"] not in given[row["provider_task_id"]]
    ]
    return found
