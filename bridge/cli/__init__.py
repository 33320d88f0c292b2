"""The `edgespool` command: one function per subcommand, one module behind each.

This module only knows flags. The house is imported inside the commands, because
the interpreter needs longer to read pydantic, starlette and pyzmq than to answer
`--version`, and a shell completes and asks for help much more often than it
starts a gateway.

    exit code   0   done
                1   what was asked cannot be had: nobody answers, the link broke
                2   the command line is wrong
               78   the configuration is wrong (EX_CONFIG of sysexits.h)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.dlq import dlq

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgespool",
    help="The MQTT gateway that does not lose messages.",
    no_args_is_help=True,
    add_completion=False,
    # Help and errors go to journals, pipes and serial consoles too: plain text.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="edgespool")


def _print_version(asked: bool) -> None:
    if asked:
        from bridge import __version__

        typer.echo(f"edgespool {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="The configuration; without one, the built-in.", show_default=False)
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Listen for devices here.", show_default=False)
    ] = None,
    zeromq: Annotated[
        str | None,
        typer.Option(
            metavar="ENDPOINT", help="Bind the ZeroMQ sink here (tcp://HOST:PORT).", show_default=False
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|off", help="Serve status and metrics here.", show_default=False),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the spool in this folder.", show_default=False)
    ] = None,
) -> None:
    """Start the gateway; each flag overrides its part of the configuration."""
    from bridge.cli.run import run_gateway

    raise typer.Exit(run_gateway(config, mqtt=mqtt, zeromq=zeromq, web=web, state=state))


@app.command()
def tail(
    endpoint: Annotated[
        str, typer.Option(metavar="ENDPOINT", help="Where the ZeroMQ sink of the gateway is bound.")
    ] = "tcp://127.0.0.1:5556",
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Leave after N messages.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    server_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CURVE: the public key of the gateway.", show_default=False),
    ] = None,
    secret_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CURVE: our own secret key.", show_default=False),
    ] = None,
) -> None:
    """Take messages from the gateway, print them and acknowledge them: a stand-in for the cloud."""
    from bridge.cli.tail import print_messages

    if (server_key is None) != (secret_key is None):
        raise typer.BadParameter("--server-key and --secret-key come together")
    raise typer.Exit(print_messages(endpoint, count, as_json, server_key, secret_key))


@app.command()
def keygen(
    file: Annotated[
        Path, typer.Argument(help="Where the secret key goes; the public one goes beside it, as FILE.pub.")
    ],
) -> None:
    """Make a pair of keys for ZeroMQ with CURVE, and print the public one."""
    from bridge.cli.keygen import make_keys

    raise typer.Exit(make_keys(file))


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(help="The configuration to check.")],
) -> None:
    """Check a configuration and say everything that is wrong with it."""
    from bridge.cli.validate import validate_file

    raise typer.Exit(validate_file(config))


@app.command()
def status(
    web: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the gateway serves its status.")
    ] = "127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="The status document as it is.")] = False,
) -> None:
    """Show what is up, what is down, and what waits."""
    from bridge.cli.status import show_status

    raise typer.Exit(show_status(web, as_json))


@app.command()
def passwd(
    file: Annotated[Path, typer.Argument(help="The password file; it is made where there is none.")],
    user: Annotated[str, typer.Argument(help="The user to add, or to give another password.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user instead.")] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the password from stdin; do not ask.")] = False,
) -> None:
    """Add a user to a password file, or change or remove one."""
    from bridge.cli.passwd import change_password

    raise typer.Exit(change_password(file, user, delete=delete, stdin=stdin))


imports = typer.Typer(
    name="import", help="Take over the configuration of another broker.", no_args_is_help=True
)
app.add_typer(imports)


@imports.callback()
def _imports() -> None:
    pass


@imports.command("mosquitto")
def import_mosquitto(
    conf: Annotated[Path, typer.Argument(metavar="FILE", help="The mosquitto.conf.")],
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Mosquitto's working directory, where relative paths start; default: this one.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            metavar="PORT",
            help="As mosquitto -p, if FILE names no listener.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="2.0|2.1",
            help="Whose defaults; default: what the settings tell.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print a mosquitto.conf as YAML, and what of it has no equivalent."""
    from bridge.cli.imports import print_import

    if version not in (None, "2.0", "2.1"):
        raise typer.BadParameter("must be 2.0 or 2.1", param_hint="--as")
    raise typer.Exit(print_import(conf, directory=directory, port=port, version=version))


spool = typer.Typer(
    name="spool",
    help="Look into a store, also while a gateway runs on it; nothing in it is changed.",
    no_args_is_help=True,
)
app.add_typer(spool)

Config = Annotated[
    Path | None,
    typer.Argument(help="The configuration of the gateway; without one, the built-in.", show_default=False),
]
State = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the store, if it is another.", show_default=False),
]
RouteName = Annotated[
    str | None,
    typer.Option(
        "--route", metavar="ROUTE", help="What this route has still to deliver.", show_default=False
    ),
]
All = Annotated[bool, typer.Option("--all", help="With --route: also what it has delivered and is kept.")]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="FILTER", help="Topics that a filter matches.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Arrived since then: 2h, or 2026-03-01T06:00:00Z.", show_default=False),
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Arrived before then.", show_default=False)]
Dead = Annotated[bool, typer.Option("--dead", help="The dead letters instead, each with its reason.")]


@spool.callback()
def _spool() -> None:
    pass


@spool.command("info")
def spool_info(
    config: Config = None,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show segments, cursors, what each route has still to deliver, and damage."""
    from bridge.cli.spool import show_info

    raise typer.Exit(show_info(config, state, as_json))


@spool.command("verify")
def spool_verify(config: Config = None, state: State = None) -> None:
    """Read every record and list what is damaged; exit code 1 when anything is."""
    from bridge.cli.spool import verify_store

    raise typer.Exit(verify_store(config, state))


@spool.command("cat")
def spool_cat(
    config: Config = None,
    state: State = None,
    route: RouteName = None,
    everything: All = False,
    topic: Topics = None,
    since: Since = None,
    until: Until = None,
    dead: Dead = False,
) -> None:
    """Print messages that lie in the store, one a line."""
    _print_stored(config, state, route, everything, topic, since, until, dead, as_json=False)


@spool.command("export")
def spool_export(
    config: Config = None,
    state: State = None,
    route: RouteName = None,
    everything: All = False,
    topic: Topics = None,
    since: Since = None,
    until: Until = None,
    dead: Dead = False,
) -> None:
    """Print messages that lie in the store as NDJSON: one JSON object a line."""
    _print_stored(config, state, route, everything, topic, since, until, dead, as_json=True)


app.add_typer(dlq)


@app.command()
def replay(
    route: Annotated[str, typer.Option(metavar="ROUTE", help="Whose messages.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Arrived since then: 2h, or 2026-03-01T06:00:00Z.")
    ],
    config: Config = None,
    until: Until = None,
    to: Annotated[
        str | None, typer.Option(metavar="SINK", help="To this sink instead.", show_default=False)
    ] = None,
    state: State = None,
    wait: Annotated[bool, typer.Option(help="Wait until all is sent; Ctrl-C stops it.")] = True,
) -> None:
    """Ask the running gateway to send kept history once more, marked as replayed."""
    import time

    from bridge.cli.replay import replay as ask
    from bridge.forward.orders import Order

    since_ns, until_ns = _moments(since, until)
    assert since_ns is not None
    order = Order(route, since_ns, time.time_ns() if until_ns is None else until_ns, to or "")
    raise typer.Exit(ask(config, state, order, wait=wait))


def _print_stored(
    config: Path | None,
    state: Path | None,
    route: str | None,
    everything: bool,
    topics: list[str] | None,
    since: str | None,
    until: str | None,
    dead: bool,
    *,
    as_json: bool,
) -> None:
    from bridge.cli.cat import Wanted, print_messages
    from bridge.topic import LEVELS_ANY, check_topic_filter

    for topic in topics or ():
        if wrong := check_topic_filter(topic, LEVELS_ANY):
            raise typer.BadParameter(wrong, param_hint="--topic")
    since_ns, until_ns = _moments(since, until)
    wanted = Wanted(route, everything, tuple(topics or ()), since_ns, until_ns, dead)
    raise typer.Exit(print_messages(config, state, wanted, as_json))


def _moments(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    import time

    from bridge.cli.when import parse_moment

    now_ns = time.time_ns()
    moments: list[int | None] = []
    for hint, text in (("--since", since), ("--until", until)):
        try:
            moments.append(None if text is None else parse_moment(text, now_ns))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=hint) from None
    return moments[0], moments[1]
