"""Each process shows its own metrics; what a worker knows is not asked of the server."""

import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from darkroom.brand import load_brand
from darkroom.config import IsolatedSettings, SettingsError
from darkroom.edges.serve import listen_on_free_port, metrics_shown
from darkroom.edges.server import ServerParts, build_server
from darkroom.edges.worker import AUDIT_LAST
from tests.edges.serving import client_of
from tests.shop import Shop


def _settings(tmp_path: Path, port: int | None) -> IsolatedSettings:
    return IsolatedSettings.model_validate(
        {"DARKROOM_DATA_DIR": tmp_path, "DARKROOM_METRICS_PORT": port}
    )


def test_a_process_without_a_server_shows_its_metrics(tmp_path: Path) -> None:
    """The audit's verdict was set in the worker, which nobody could ask: "no finding", for ever."""
    AUDIT_LAST.set(1_795_888_427)
    with metrics_shown(_settings(tmp_path, 0)) as port:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert "darkroom_audit_last_success_seconds 1.795888427e+09" in page
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    AUDIT_LAST.set(0)


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with closing(listen_on_free_port()) as taken:
        taken.listen()
        settings = _settings(tmp_path, taken.getsockname()[1])
        with (
            pytest.raises(SettingsError, match="DARKROOM_METRICS_PORT cannot be listened on"),
            metrics_shown(settings),
        ):
            pass


def test_without_the_setting_there_is_no_port(tmp_path: Path) -> None:
    with metrics_shown(_settings(tmp_path, None)) as port:
        assert port is None


@pytest.mark.parametrize("shows", [True, False])
async def test_the_public_port_shows_none_where_they_have_their_own(
    shop: Shop, *, shows: bool
) -> None:
    application = build_server(
        shop.darkroom,
        ServerParts(
            demo=True,
            brand=load_brand(None),
            cron_secret=None,
            queue_receiver=None,
            shows_metrics=shows,
        ),
    )
    async with client_of(application) as client:
        assert (await client.get("/metrics")).status_code == (200 if shows else 404)
