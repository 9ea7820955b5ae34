"""Photos that a customer likes best."""

from darkroom.core.photos import PhotoView, find_photo, list_favorites, set_favorite
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found


async def mark_favorite(
    darkroom: Darkroom, *, user_id: int, photo_id: int, favorite: bool
) -> PhotoView:
    """Mark a photo, or take the mark away. Harmless twice.

    Raises:
        RequestRefusedError: 404: no such photo, somebody else's, or hidden; nothing was changed.
        DatabaseUnavailableError: ask again.
    """
    async with darkroom.database.connection() as tx:
        await set_favorite(tx, user_id=user_id, photo_id=photo_id, favorite=favorite)
        photo = await find_photo(tx, user_id=user_id, photo_id=photo_id)
    if photo is None:
        raise not_found("photo")
    return photo


async def read_favorites(
    darkroom: Darkroom, *, user_id: int, before_id: int | None, limit: int
) -> list[PhotoView]:
    """A page of the marked photos of all avatars, newest photo first. `before_id`: the last page's last."""
    async with darkroom.database.connection() as tx:
        return await list_favorites(tx, user_id=user_id, before_id=before_id, limit=limit)
