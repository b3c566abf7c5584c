"""The commands of the service: serve, its keys, and what its folder no longer needs. Parse, call, print, exit.

Owns their options.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.config import quoted
from tiebreak.errors import ConfigError, RunError
from tiebreak.reporting import console

FOLDER = "service"
Folder = Annotated[str, typer.Option("--dir", metavar="DIR", help="The service's folder; made where there is none.")]
Of = Annotated[str, typer.Option("--dir", metavar="DIR", help="The service's folder.")]
Config = Annotated[
    str | None, typer.Option("--config", metavar="YAML", help="What is offered, and to whom; none: the bundled model.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    serve = typer.Typer(no_args_is_help=False)
    serve.callback(
        invoke_without_command=True,
        epilog=examples(
            "tiebreak serve --dir service",
            "tiebreak serve keys add me --dir service",
            "tiebreak serve --config serve.yaml --port 9000",
            "tiebreak serve --host 0.0.0.0 --certificate cert.pem --private-key key.pem",
            "tiebreak serve gc --dir service --dry-run",
        ),
    )(run)
    keys = typer.Typer(help="Who may ask: add, list, rotate, revoke.", no_args_is_help=True)
    keys.command(
        "add",
        epilog=examples("tiebreak serve keys add me", "tiebreak serve keys add ci --quota jobs_a_day=5 --quota gb=1"),
    )(add)
    keys.command("list", epilog=examples("tiebreak serve keys list --json"))(list_keys)
    keys.command("rotate", epilog=examples("tiebreak serve keys rotate ci"))(rotate)
    keys.command("revoke", epilog=examples("tiebreak serve keys revoke ci"))(revoke)
    serve.add_typer(keys, name="keys")
    serve.command("gc", epilog=examples("tiebreak serve gc --dry-run", "tiebreak serve gc --json"))(sweep)
    app.add_typer(serve, name="serve")


def run(
    context: typer.Context,
    folder: Folder = FOLDER,
    config: Config = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 8080,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy brings TLS; what it forwards of a client is believed.")
    ] = False,
    certificate: Annotated[
        str | None, typer.Option("--certificate", metavar="PEM", help="Certificate, for TLS.")
    ] = None,
    private_key: Annotated[str | None, typer.Option("--private-key", metavar="PEM", help="Its key.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer OpenAI's fine-tuning API: files, jobs (DPO and SFT), models and chat, on this machine.

    Jobs run in processes of their own, and go on when the server ends; the next one finds them.
    """
    if context.invoked_subcommand is not None:
        for option in context.command.params:
            if context.params.get(str(option.name), option.default) != option.default:
                raise ConfigError(f"serve {context.invoked_subcommand}: give {option.opts[0]} after it, not before")
        return
    _require_extra()
    from tiebreak.service.listening import Address, Listening, serve

    def say(told: Listening) -> None:
        if as_json:
            console.print_json({"url": told.url, "dir": str(told.folder), "models": [*told.models]})
        else:
            console.print_text(f"serving {', '.join(told.models)} at {told.url}  (Ctrl-C ends it; jobs go on)")
            if not (told.num_keys or quiet):
                console.print_text(f"no key is in use; make one:  tiebreak serve keys add me --dir {quoted(folder)}")
        sys.stdout.flush()  # whoever reads it from a pipe waits for it

    serve(Path(folder), config, Address(host, port, behind_proxy, certificate, private_key), say)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in lists.")],
    folder: Folder = FOLDER,
    quotas: Annotated[
        list[str] | None,
        typer.Option("--quota", metavar="KEY=VALUE", help="Of its own: jobs_at_once, jobs_a_day, gb, tokens_a_minute."),
    ] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Make a key and print it, once: only a digest of it is kept."""
    from tiebreak.config.loading import parsed
    from tiebreak.service import keys
    from tiebreak.service.store import open_store

    with contextlib.closing(open_store(Path(folder))) as store:
        key, token = keys.add(store, name, dict(parsed(quotas or ())))
    console.print_json({"id": key.id, "name": key.name, "key": token}) if as_json else console.print_text(token)


def list_keys(folder: Of = FOLDER, as_json: Json = False, quiet: Quiet = False) -> None:
    """Say which keys there are, without what they are."""
    from tiebreak.service import keys

    with _there(folder) as store:
        found = [one.as_dict() for one in keys.listed(store)]
    if as_json:
        console.print_json(found)
        return
    for one in found:
        since = "revoked" if one["revoked"] else "in use"
        own = ", ".join(f"{name} {value}" for name, value in one["quotas"].items())
        console.print_text(f"{one['name']}  {since}{f'  ({own})' * bool(own)}")
    if not (found or quiet):
        console.print_text("no key; 'tiebreak serve keys add NAME' makes one")


def rotate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in lists.")],
    folder: Of = FOLDER,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Give a key another secret and print it, once; what is the key's stays so, and the old secret is none."""
    from tiebreak.service import keys

    with _there(folder) as store:
        key, token = keys.rotate(store, name)
    console.print_json({"id": key.id, "name": key.name, "key": token}) if as_json else console.print_text(token)


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in lists.")],
    folder: Of = FOLDER,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Revoke a key: the next request with it is refused; its jobs go on."""
    from tiebreak.service import keys

    with _there(folder) as store:
        found = keys.revoke(store, name)
    console.print_json(found.as_dict()) if as_json else console.print_text(f"{name} is revoked")


def sweep(
    folder: Of = FOLDER,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Remove what has had its time: files that expired, folders of old jobs, leftovers. Models stay."""
    from tiebreak.config.service import load_serve
    from tiebreak.service import retention

    settings, _ = load_serve(config)
    with _there(folder) as store:
        gone = retention.sweep(store, settings, dry_run=dry_run)
    if as_json:
        console.print_json([one.as_dict() for one in gone])
        return
    for one in gone:
        console.print_text(f"{one.kind} {one.id}  {one.bytes / 1e6:.1f} MB  {one.why}")
    freed = sum(one.bytes for one in gone)
    console.print_text(f"{'would free' if dry_run else 'freed'} {freed / 1e6:.1f} MB")


def _there(folder: str) -> contextlib.closing[Any]:
    from tiebreak.service.store import open_store

    if not (Path(folder) / "service.db").is_file():
        raise RunError(f"{folder}: holds no service; name its folder with --dir")
    return contextlib.closing(open_store(Path(folder)))


def _require_extra() -> None:
    try:
        import fastapi
        import python_multipart
        import standardwebhooks
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}; pip install 'tiebreak[serve]'") from None
    del fastapi, python_multipart, standardwebhooks, uvicorn
