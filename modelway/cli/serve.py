"""`modelway serve`: the server in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import warn
from modelway.cli.setup import set_up


@examples(
    "modelway serve",
    "modelway serve --port 8080 --fallback Local",
    "modelway serve --host 0.0.0.0        needs a key (`modelway keys`) or --allow-remote",
)
def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; localhost is 127.0.0.1 and ::1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", "-p", help="The default provider.")] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Provider to try when the asked one cannot answer; repeatable."),
    ] = None,
    preload: Annotated[
        bool | None, typer.Option("--preload", help="Load the embedded model before the first request.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read this file instead of ./modelway.toml.")
    ] = None,
    allow_remote: Annotated[
        bool | None,
        typer.Option("--allow-remote", help="Let anybody in who can reach the address, without an API key."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C."""
    setup = set_up(
        context,
        {
            "server.host": host,
            "server.port": port,
            "provider": provider,
            "fallback": fallback or None,
            "local.preload": preload,
            "server.allow_remote": allow_remote,
            "log.level": log_level,
        },
        config=config,
    )
    _log_to_stderr(setup.settings.log.level)
    from modelway.page.door import Door
    from modelway.server.run import KeyNeeded, PortInUse, run

    try:
        run(
            setup.settings,
            data_dir=setup.directories.data,
            on_ready=lambda url, keyed: warn(welcome(url, keyed=keyed)),
            origins=setup.loaded.origins,
            page=Door,
        )
    except KeyNeeded as error:
        error.from_flag = setup.loaded.origin("server.host").startswith("flag")
        raise
    except PortInUse as error:
        raise CommandError(
            str(error.strerror),
            hint="choose another with --port, or end the program that has it (`modelway doctor` looks at it)",
            code=ExitCode.CONFIG,
        ) from None


def welcome(url: str, *, keyed: bool) -> str:
    """What a person needs to point a program at the server."""
    key = "YOUR_API_KEY" if keyed else "modelway"
    authorization = f" -H 'authorization: Bearer {key}'" if keyed else ""
    question = '{"messages": [{"role": "user", "content": "Hello"}]}'
    return (
        f"Modelway listens on {url} (Ctrl-C ends it)\n\n"
        f"  export OPENAI_BASE_URL={url}/v1\n"
        f"  export OPENAI_API_KEY={key}\n\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{authorization}"
        f" -d '{question}'\n"
    )


def _log_to_stderr(level: str) -> None:
    import logging

    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # The line of a request is JSON, for programs: nothing may stand before it.
    bare = logging.StreamHandler()
    bare.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("modelway.request")
    requests.addHandler(bare)
    requests.propagate = False
