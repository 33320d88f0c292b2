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
