"""For operators' machines: is it alive, and how is it."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from darkroom.edges.api import Joined
from darkroom.edges.envelope import success

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz(darkroom: Joined) -> JSONResponse:
    """200 when the database answers and takes writes; 503 otherwise."""
    await darkroom.database.ping()
    return success({"database": "ok"})


metrics_router = APIRouter()
"""Only where the metrics have no port of their own: they say what is earned and what is wrong."""


@metrics_router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Prometheus's page."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
