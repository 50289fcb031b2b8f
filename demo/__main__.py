"""`python -m demo`: brings a mesh up, tells the story on it, takes it down. Exit code 0 only if all held."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from demo.model import named, shipped
from demo.story import tell_story
from demo.telling import Teller
from demo.world import CommandFailed, World, end_leftovers

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".state"


async def run(console: Console, model: str, keep: bool) -> bool:
    """The whole demo; whether every expectation held."""
    begun = time.monotonic()
    teller = Teller(console)
    with console.status("starting") as status:
        if end_leftovers(STATE / "demo"):
            console.print("  an earlier demo was still up and has been ended")

        def progress(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(f"  {text}")

        chosen = named(model) if model else shipped(STATE / "models" / "tiny")
        opened = World.open(STATE / "demo", chosen, keep=keep, progress=progress)
        async with opened as world:
            status.stop()
            up = time.monotonic() - begun
            console.print(
                f"  the mesh is up after {up:.0f} s: etcd, 3 control planes, 3 nodes with Ray and vLLM"
            )
            console.print("  [dim]etcd is 3.5.1 from its wheel: right for this, never for production[/]")
            if chosen.about:
                console.print(f"  [dim]the model is {chosen.about}[/]")
            await tell_story(world, teller)
            console.print()
            console.print(teller.summary())
            console.print(
                f"  {time.monotonic() - begun:.0f} s from start to finish, {up:.0f} s of them to come up; "
                f"{world.memory.peak_bytes / 2**30:.1f} GiB of memory at the peak"
            )
            if keep:
                _how_to_talk(console, world)
    if teller.held:
        console.print("  [bold green]every expectation of the story held[/]")
    else:
        console.print(f"  [bold red]not every expectation held[/]; logs are in {STATE / 'demo'}")
    return teller.held


def _how_to_talk(console: Console, world: World) -> None:
    console.print("\n  [bold]The mesh is up.[/] To talk to it:")
    meshctl = Path(sys.executable).parent / "meshctl"
    firm, admin = world.profiles["firm"], world.authorities["DE"].admin
    receipt = world.root / "mine.receipt.json"
    trust = [f"--trust {authority.bundle}" for authority in world.authorities.values()]
    for line in (
        f"{meshctl} place --profile {firm} --class confidential --purpose contracts/drafting --explain",
        f"{meshctl} chat --profile {firm} --class public --purpose demo --model {world.model_name} Hello",
        f"{meshctl} search handbook 'Who supplies dry ice?' --profile {firm} --class public --purpose demo"
        " --level passage",
        f"{meshctl} ask handbook 'Who supplies dry ice?' --profile {firm} --class public --purpose demo",
        f"{meshctl} place --profile {firm} --class public --purpose demo --receipt {receipt}",
        f"{meshctl} audit verify {receipt} {' '.join(trust)}",
        f"{meshctl} node list --profile {admin}",
        f"{meshctl} status --profile {admin}",
        "make stop    # ends it",
    ):
        console.print(f"    {line}", soft_wrap=True, highlight=False)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Three jurisdictions, one mesh.")
    parser.add_argument("--keep", action="store_true", help="leave the mesh up afterwards")
    parser.add_argument("--stop", action="store_true", help="end a mesh that was left up")
    parser.add_argument("--model", default="", help="a path or hub id of a real model; default: a tiny one")
    arguments = parser.parse_args()
    # What the product's libraries have to say stands in the story already.
    logging.getLogger("mesh").setLevel(logging.ERROR)
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    if arguments.stop:
        found = end_leftovers(STATE / "demo")
        console.print("  ended" if found else "  there was nothing to end")
        return 0
    # SIGTERM unwinds like Ctrl-C, so that everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        return 0 if asyncio.run(run(console, arguments.model, arguments.keep)) else 1
    except KeyboardInterrupt:
        console.print("  interrupted; everything that was started has been ended")
        return 130
    except (RuntimeError, TimeoutError, CommandFailed) as error:
        console.print(f"  [bold red]the mesh did not come up[/]: {escape(str(error))}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
