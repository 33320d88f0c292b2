"""`edgespool dlq`: the flags of its subcommands; `bridge.cli.letters` does the work.

Every one of them takes the same selection. What changes something wants one, or `--all`:
a command line that ends too early must not drop everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bridge.forward.letters import Selection

__all__ = ["dlq"]

dlq = typer.Typer(
    name="dlq",
    help="Dead letters, what a far end refused for good: look at them, send them again, drop them.",
    no_args_is_help=True,
)

Config = Annotated[
    Path | None,
    typer.Argument(help="The configuration of the gateway; without one, the built-in.", show_default=False),
]
State = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the store, if it is another.", show_default=False),
]
RouteName = Annotated[
    str, typer.Option("--route", metavar="ROUTE", help="Those of this route.", show_default=False)
]
Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Those whose reason has this text.", show_default=False),
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", metavar="ID", help="The message with this id; several.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]


@dlq.callback()
def _dlq() -> None:
    pass


@dlq.command("list")
def list_letters(
    config: Config = None, route: RouteName = "", reason: Reason = "", id: Ids = None, state: State = None
) -> None:
    """Print the letters that wait, one a line, and how many there are by route and reason."""
    from bridge.cli.letters import print_list

    raise typer.Exit(print_list(config, state, _selection(route, reason, id)))


@dlq.command("show")
def show_letter(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of the message, or its last part.")],
    config: Config = None,
    state: State = None,
) -> None:
    """Print one letter with everything about it."""
    from bridge.cli.letters import print_one

    raise typer.Exit(print_one(config, state, id))


@dlq.command("export")
def export_letters(
    config: Config = None, route: RouteName = "", reason: Reason = "", id: Ids = None, state: State = None
) -> None:
    """Print letters as NDJSON: one JSON object a line."""
    from bridge.cli.letters import export

    raise typer.Exit(export(config, state, _selection(route, reason, id)))


@dlq.command("replay")
def replay_letters(
    config: Config = None,
    route: RouteName = "",
    reason: Reason = "",
    id: Ids = None,
    everything: All = False,
    to: Annotated[
        str, typer.Option(metavar="SINK", help="To this sink instead of the route's.", show_default=False)
    ] = "",
    state: State = None,
    wait: Wait = True,
) -> None:
    """Have letters sent again, marked as replayed; those that are confirmed are gone from the list."""
    from bridge.cli.letters import order
    from bridge.forward.orders import LetterOrder

    selection = _meant(_selection(route, reason, id), everything)
    raise typer.Exit(order(config, state, LetterOrder("replay", selection, to), wait=wait))


@dlq.command("drop")
def drop_letters(
    config: Config = None,
    route: RouteName = "",
    reason: Reason = "",
    id: Ids = None,
    everything: All = False,
    state: State = None,
    wait: Wait = True,
) -> None:
    """Drop letters for good."""
    from bridge.cli.letters import order
    from bridge.forward.orders import LetterOrder

    selection = _meant(_selection(route, reason, id), everything)
    raise typer.Exit(order(config, state, LetterOrder("drop", selection), wait=wait))


def _selection(route: str, reason: str, ids: list[str] | None) -> Selection:
    from bridge.forward.letters import Selection

    return Selection(route, reason, ids or [])


def _meant(selection: Selection, everything: bool) -> Selection:
    some = bool(selection.route or selection.reason or selection.ids)
    if some == everything:
        raise typer.BadParameter("name which letters, by --route, --reason or --id, or write --all")
    return selection
