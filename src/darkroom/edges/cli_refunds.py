"""`darkroom refunds`: what a person does about money that is owed back."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table

from darkroom.config import Settings
from darkroom.core.refund_list import RefundView
from darkroom.edges.terminal import Wires, console, run, say_if_cut, settings_or_exit
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.pay_back import (
    LIST_MAX,
    GoodwillRequest,
    ask_refund_again,
    look_again,
    note_paid_by_hand,
    pay_back,
    read_open_refunds,
)
from darkroom.ports.money import Money

T = TypeVar("T")


def refunds_cli(wires: Wires) -> typer.Typer:
    """The commands."""
    refunds = typer.Typer(help="Money that is owed back.", no_args_is_help=True)

    @refunds.command("list")
    def list_refunds() -> None:
        """Every refund that is not back yet; those that wait for a person come first."""
        found = run(_with_darkroom(wires, settings_or_exit(), read_open_refunds))
        console.print(_table(found[:LIST_MAX]) if found else "nothing is owed back")
        say_if_cut(found, LIST_MAX)

    @refunds.command("pay")
    def pay(
        payment: Annotated[int, typer.Argument(help="the payment's number")],
        note: Annotated[str, typer.Option(help="why, for the books")],
        amount: Annotated[
            int | None, typer.Option(min=1, help="in minor units; unset: all that is left")
        ] = None,
    ) -> None:
        """Owe a customer money. Photos it pays for that are delivered become gifts."""
        request = GoodwillRequest(payment, amount, note, uuid4())
        _say(run(_with_darkroom(wires, settings_or_exit(), lambda d: pay_back(d, request))))

    @refunds.command("again")
    def again(refund: Annotated[int, typer.Argument(help="the refund's number")]) -> None:
        """Send a refused refund once more: the same row, a new key."""
        _say(run(_with_darkroom(wires, settings_or_exit(), lambda d: ask_refund_again(d, refund))))

    @refunds.command("by-hand")
    def by_hand(
        refund: Annotated[int, typer.Argument(help="the refund's number")],
        note: Annotated[str, typer.Option(help="how it was paid, for the books")],
    ) -> None:
        """Say that a refused refund was paid some other way."""
        _say(
            run(
                _with_darkroom(
                    wires, settings_or_exit(), lambda d: note_paid_by_hand(d, refund, note=note)
                )
            )
        )

    @refunds.command("look")
    def look(payment: Annotated[int, typer.Argument(help="the payment's number")]) -> None:
        """Have the provider's books of one payment read anew; a worker does it. What a difference wants."""
        run(_with_darkroom(wires, settings_or_exit(), lambda d: look_again(d, payment)))
        console.print(f"payment {payment} is looked at by the next worker")

    return refunds


async def _with_darkroom(
    wires: Wires, settings: Settings, work: Callable[[Darkroom], Awaitable[T]]
) -> T:
    async with wires.open_darkroom(settings) as darkroom:
        return await work(darkroom)


def _say(refund: RefundView) -> None:
    amount = Money(refund.amount_minor, refund.currency)
    console.print(f"refund {refund.id} of payment {refund.payment_id}: {amount}, {refund.status}")


def _table(found: list[RefundView]) -> Table:
    table = Table("refund", "payment", "owed", "status", "why", "calls", "last word", box=None)
    for refund in found:
        owed = Money(refund.amount_minor - refund.settled_minor, refund.currency)
        table.add_row(
            str(refund.id),
            str(refund.payment_id),
            str(owed),
            f"[red]{refund.status}[/red]" if refund.status == "failed" else refund.status,
            refund.reason,
            str(refund.calls),
            escape((refund.last_error or "")[:60]),
        )
    return table
