"""guiderail console: a page on this machine in which one uses an agent, watches it, and takes over."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import SHIPPED
from guiderail.launch import parts, show
from guiderail.launch.agents import AgentSpec, voice
from guiderail.launch.console.standing import Options
from guiderail.launch.options import Temperature

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from guiderail.launch.console.server import Page

HOST_HELP = "where to listen; anything but loopback lets other machines ask"
AGAIN = "From an attempt of a run"
STARTED = "console: "
"""What the line with the address begins with: programs that start a console read it."""


def console(
    model: Annotated[list[str] | None, typer.Option(help="model folder or hub id; may be given several times")] = None,
    server: Annotated[str | None, typer.Option(help="OpenAI-compatible URL, such as http://127.0.0.1:8000/v1")] = None,
    served_model: Annotated[str | None, typer.Option(help="model id on the server")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="a device to offer, as guiderail run names it; may be given several times")
    ] = None,
    temperature: Temperature = 0.0,
    likely: Annotated[
        int,
        typer.Option(help="answers drawn at each step of a local model, to show what else it might do; 0: none", min=0),
    ] = 16,
    apps: Annotated[Path | None, typer.Option(help='for adb: JSON object {"app name": "package/activity"}')] = None,
    settle: Annotated[float, typer.Option(help="for adb: seconds the screen needs after an action")] = 1.0,
    run: Annotated[
        Path | None, typer.Option("--from", help="a run folder: begin with one of its attempts", rich_help_panel=AGAIN)
    ] = None,
    episode: Annotated[str, typer.Option(help="the attempt's task", rich_help_panel=AGAIN)] = "",
    rollout: Annotated[int, typer.Option(help="which attempt at the task, from 0", rich_help_panel=AGAIN)] = 0,
    step: Annotated[int, typer.Option(help="the step to begin before, from 0", rich_help_panel=AGAIN)] = 0,
    out: Annotated[Path, typer.Option(help="folder for what was done: a run folder per attempt")] = Path(
        "runs/console"
    ),
    review: Annotated[
        Path | None,
        typer.Option(help="instead: ask about the mismatches of this run along recordings, the most telling first"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="with --review: where the recordings are now, if they moved")] = None,
    annotator: Annotated[str, typer.Option(help="with --review: who answers")] = "",
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one", min=0, max=65535)] = 0,
) -> None:
    """A page in which you use an agent, watch it, and take over. It prints its address, which holds a secret."""
    require_server()
    if review is not None:
        from guiderail.launch.byhand.review import open_review
        from guiderail.launch.console.reviewing import review_page

        serve_pages([review_page(open_review(review, annotator, data))], host, port)
        return
    from guiderail.launch.console.again import find
    from guiderail.launch.console.lanes import Lanes, Offer
    from guiderail.launch.console.talk import console_page

    found = None if run is None else find(run, episode, rollout, step)
    models = [*(model or []), *([found.model] if found and not model and not server and _local(found.model) else [])]
    offer = Offer(agents(models, server, served_model), devices(device or []), temperature, apps, settle)
    lanes = Lanes(offer, Options(likely=likely), out)
    if found is not None:
        first = found.model if found.model in offer.agents else next(iter(offer.agents))
        lanes.start(0, first, found.device, found.goal, found.seed, found.again)
    try:
        serve_pages([console_page(lanes)], host, port)
    finally:
        lanes.close()


def require_server() -> None:
    """Raises SetupError where what serves pages is not installed."""
    for module in ("starlette", "uvicorn", "websockets"):
        parts.require(module, "console")


def serve_pages(pages: Sequence[Page], host: str, port: int) -> None:
    """Print the address, then serve until Ctrl-C."""
    from guiderail.launch.console.server import application, is_loopback

    token = secrets.token_urlsafe(32)
    with _listening(host, port) as listener:
        here = listener.getsockname()[1]
        app = application(token, host, here, pages)
        if not is_loopback(host):
            show.err.print(
                f"warning: {host} can be reached by other machines. Whoever has the address below can use your devices, and "
                "nothing is encrypted on the way.",
                style="bold yellow",
            )
        shown = f"[{host}]" if ":" in host else host
        show.out.print(f"{STARTED}http://{shown}:{here}/{token}/", soft_wrap=True)
        asyncio.run(server_of(app).serve(sockets=[listener]))


def server_of(app: ASGIApp) -> uvicorn.Server:
    """What serves the application: one process, small messages, no log of addresses, which hold the token."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=1 << 16,
        limit_concurrency=64,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)  # whoever has read the address may come before the server does
    except OSError as error:
        listener.close()
        raise SetupError(f"cannot listen on {host}:{port} ({error.strerror}); give another --host or --port") from None
    return listener


def agents(models: Sequence[str], server: str | None, served_model: str | None) -> Mapping[str, AgentSpec]:
    """The agents to offer, by name; without any, tiny-sft where it can run, and the tasks' own experts in any case. Raises
    SetupError for a model that is not there."""
    named = [AgentSpec(model=model) for model in models]
    if server is not None:
        named.append(AgentSpec(server=server, served_model=served_model))
    if not named and find_spec("torch") is not None:
        named = [AgentSpec(model="tiny-sft")]
    for spec in named:
        voice(spec)
    return {spec.name: spec for spec in named} | {"expert": AgentSpec(agent="expert")}


def _local(model: str) -> bool:
    """Whether this is a model of this machine. A run may come from somebody else: a hub id in it is not fetched."""
    return model in SHIPPED or Path(model).is_dir()


def devices(named: Sequence[str]) -> list[str]:
    """Those that were named; without any, what this machine has."""
    if named:
        return [*named]
    found = ["pocket", "pocket:toggle", "pocket-phone"] if find_spec("android_env") else []
    if find_spec("miniwob") and shutil.which("chromedriver"):
        found.append("miniwob:click-button")
    return found + phones()


def phones() -> list[str]:
    """Serials that adb lists; [] where there is no adb, or it does not answer."""
    if shutil.which("adb") is None:
        return []
    try:
        done = subprocess.run(["adb", "devices"], capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = (line.split() for line in done.stdout.decode("utf-8", "replace").splitlines()[1:])
    return [row[0] for row in rows if len(row) == 2 and row[1] == "device"]
