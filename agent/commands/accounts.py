"""`worklist-agent accounts`: who may log in, and machines' tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import common

if TYPE_CHECKING:
    from agent.access.principal import Role

app = typer.Typer(
    help="Local accounts and machines' tokens (web.auth = local; tokens also with oidc).",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="Name of the account or token.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="Read the password from this file instead of asking.", show_default=False),
]
COLUMNS = ("kind", "name", "role", "state", "last_used", "expires")


@app.command("add")
def add(
    name: NameArgument,
    role: Annotated[str, typer.Option(help="viewer, radiologist or administrator.")],
    password_file: PasswordFile = None,
    config: common.ConfigOption = None,
) -> None:
    """Make an account; asks for its password twice."""
    from agent.access import accounts
    from agent.access.passwords import Passwords
    from agent.clock import utc_now

    wanted = _role(role)
    loaded = common.load_config(config)
    password = _password(password_file)
    with common.database(loaded) as sessions, sessions.begin() as session:
        hasher = Passwords(loaded.web.passwords)
        accounts.add(session, hasher, name, wanted, password, utc_now())
    typer.echo(f"{name} may log in as {wanted}")


@app.command("password")
def password(
    name: NameArgument,
    password_file: PasswordFile = None,
    config: common.ConfigOption = None,
) -> None:
    """Give an account a new password; logs it out everywhere."""
    from agent.access import accounts
    from agent.access.passwords import Passwords
    from agent.clock import utc_now

    loaded = common.load_config(config)
    new = _password(password_file)
    with common.database(loaded) as sessions, sessions.begin() as session:
        accounts.set_password(session, Passwords(loaded.web.passwords), name, new, utc_now())
    typer.echo(f"{name} has a new password")


@app.command("disable")
def disable(
    name: NameArgument,
    enable: Annotated[bool, typer.Option("--enable", help="Open it again.")] = False,
    config: common.ConfigOption = None,
) -> None:
    """Close an account or token at once: its sessions end."""
    from agent.access import accounts
    from agent.clock import utc_now

    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        accounts.set_disabled(session, name, not enable, utc_now())
    typer.echo(f"{name} is {'enabled' if enable else 'disabled'}")


@app.command("token")
def token(
    name: NameArgument,
    role: Annotated[
        str, typer.Option(help="service, viewer, radiologist or administrator.")
    ] = "service",
    days: Annotated[float, typer.Option(help="How long it is good.")] = 365.0,
    config: common.ConfigOption = None,
) -> None:
    """Make a machine's bearer token and print it, this once; replaces one of the same name."""
    from agent.access import accounts
    from agent.clock import utc_now

    wanted = _role(role)
    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        secret = accounts.issue_token(session, name, wanted, days, utc_now())
    typer.echo(secret)


@app.command("list")
def listing(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Show accounts and tokens; never a password or token."""
    from db.queries import access

    with common.database(common.load_config(config)) as sessions, sessions() as session:
        rows = [
            {
                "kind": "account",
                "name": a.name,
                "role": a.role,
                "state": "disabled" if a.disabled else "open",
                "last_used": a.last_login_at,
                "expires": None,
            }
            for a in access.accounts(session)
        ] + [
            {
                "kind": "token",
                "name": t.name,
                "role": t.role,
                "state": "disabled" if t.disabled else "open",
                "last_used": t.last_used_at,
                "expires": t.expires_at,
            }
            for t in access.tokens(session)
        ]
    common.show(rows, as_json=as_json, title="accounts", columns=COLUMNS)


def _role(value: str) -> Role:
    from agent.access.principal import Role

    if value not in list(Role):
        common.fail(f"no role {value!r}; roles are: {', '.join(Role)}", common.ExitCode.USAGE)
    return Role(value)


def _password(file: Path | None) -> str:
    if file is None:
        prompted: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return prompted
    try:
        return file.read_text().rstrip("\r\n")
    except OSError as error:
        common.fail(f"{file}: {error.strerror}", common.ExitCode.USAGE)
