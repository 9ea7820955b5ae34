"""Pages for people."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_WELCOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Darkroom</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:17px/1.6 system-ui;max-width:38rem;margin:4rem auto;padding:0 1rem;color:#222}
code{background:#f2f2f2;padding:.1rem .3rem;border-radius:.3rem}</style>
<h1>Darkroom is running</h1>
<p>One payment, one generation; every photo or its money.</p>
<p>The API is described at <a href="/api/openapi.json">/api/openapi.json</a>, its health at
<a href="/healthz">/healthz</a>, its numbers at <a href="/metrics">/metrics</a>.</p>
<p>Make an order from another terminal:
<code>darkroom dev order --telegram-user 123 --avatar 456 --paid</code></p></html>"""


@router.get("/")
async def welcome() -> HTMLResponse:
    """What a person sees who opens the address."""
    return HTMLResponse(_WELCOME)


@router.get("/payments/{payment_id}")
async def returned(payment_id: str) -> HTMLResponse:  # noqa: ARG001 - the page is the same for all
    """Where a bank sends the customer back to. Nothing depends on this page being opened."""
    return HTMLResponse(
        "<!doctype html><meta charset=utf-8><title>Darkroom</title>"
        "<p style='font:17px/1.6 system-ui;margin:4rem auto;max-width:30rem'>"
        "Thank you. Your set starts by itself; you can close this page.</p>"
    )
