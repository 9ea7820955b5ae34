"""The files that pages are made of. Nobody has to be known for them, so nobody is looked up."""

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from darkroom.edges.site.frame import Site

router = APIRouter(include_in_schema=False)


@router.get("/assets/{name}")
async def asset(name: str, request: Request) -> Response:
    """A style sheet, a script, an example. Its name changes with its content."""
    site: Site = request.app.state.site
    answer = site.assets.answer(f"/assets/{name}", request.headers)
    if answer is None:
        raise HTTPException(404, "No such file")
    return answer
