"""`darkroom sign-in`: a link that an operator hands over."""

from typing import Annotated

import typer

from darkroom.config import Settings
from darkroom.edges.terminal import Wires, fail, run, settings_or_exit
from darkroom.flow.sign_in_by_link import find_person, make_sign_in_link


def add_people(app: typer.Typer, wires: Wires) -> None:
    """The command."""

    @app.command("sign-in")
    def sign_in(
        email: Annotated[str | None, typer.Option(help="the customer's address")] = None,
        telegram_user: Annotated[
            int | None, typer.Option(help="or their Telegram id", min=1)
        ] = None,
        user: Annotated[int | None, typer.Option(help="or our own number of them", min=1)] = None,
    ) -> None:
        """Print a link that signs one customer in, once, for half an hour. Who has it is them."""
        if sum(one is not None for one in (email, telegram_user, user)) != 1:
            fail("say who: one of --email, --telegram-user, --user", code=2)
        # On its own line and unwrapped: for a clipboard or a pipe.
        print(run(_link(wires, settings_or_exit(), email, telegram_user, user)))  # noqa: T201


async def _link(
    wires: Wires,
    settings: Settings,
    email: str | None,
    telegram_user: int | None,
    user: int | None,
) -> str:
    async with wires.open_darkroom(settings) as darkroom:
        if user is None:
            user = await find_person(darkroom, email=email, telegram_user_id=telegram_user)
        return await make_sign_in_link(darkroom, user)
