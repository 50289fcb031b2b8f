"""`meshctl policy`: applying, showing, testing and comparing an authority's policies.

`policy test` is offline: it runs a table of expectations against a file. `policy prove` and `policy diff`
have files of their own beside this one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from control.cli import policy_difference, policy_prove
from control.cli.consent import require_consent
from control.cli.output import Output, OutputOption, console, emit, emit_json, progress, table
from control.cli.policy_difference import Changed, before_applying, change_of
from control.cli.policy_flow_view import difference_json, difference_text
from control.cli.policy_world import policy_of, read_cedar
from control.cli.session import ProfileOption, act, call, open_session
from mesh.core.errors import MeshError, Reason
from mesh.core.expectations import Outcome, read_table, run_table
from mesh.core.policy import validate_policy
from mesh.core.policy_flows import World
from mesh.core.snapshot import PolicyDocument, policy_digest
from mesh.settings import read_yaml
from sovereign.mesh.v1 import admin_pb2

app = typer.Typer(help="Apply, show, test, prove and compare this authority's policies.")
app.command(name="prove")(policy_prove.prove)
app.command(name="diff")(policy_difference.diff)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="Cedar policies, each with an @id.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False,
    no_diff: Annotated[
        bool, typer.Option("--no-diff", help="Do not look for flows that open or close, and do not ask.")
    ] = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a policy set in force everywhere, within a second. A bad one changes nothing.

    First it lists the flows that open and close, and on a terminal it asks. Without one it goes on.
    """
    cedar = read_cedar(file)
    old, new, world = act(_prepare(profile, cedar, not no_diff), output, "checking")
    change = None
    if world is not None:
        with progress("comparing with what is in force", output):
            change = change_of(world, _in_force(old), cedar)
        if output is Output.TEXT:
            _show(change)
    if not dry_run:
        differs = isinstance(change, MeshError) or (change is not None and bool(change.difference.changes))
        if differs and not yes and output is Output.TEXT and sys.stdin.isatty():
            require_consent("put it in force?", False, "nothing was changed")
        new = act(_apply(profile, cedar), output, "applying")
    data: dict[str, Any] = {
        "dry_run": dry_run,
        "old": {"digest": old.digest, "generation": old.generation},
        "new": {"digest": new.digest, "generation": new.generation},
        "policies": list(new.policy_ids),
    }
    if change is not None:
        data["diff"] = (
            {"undecided": change.message} if isinstance(change, MeshError) else difference_json(*change)
        )
    emit(
        output,
        data,
        f"{'checked' if dry_run else 'in force'}: {old.digest or 'nothing'} -> {new.digest}",
        f"{len(new.policy_ids)} policies: {', '.join(new.policy_ids)}",
    )


async def _prepare(
    profile: Path | None, cedar: str, with_diff: bool
) -> tuple[admin_pb2.GetPolicyResponse, admin_pb2.ApplyPolicyResponse, World | MeshError | None]:
    """What is in force, that the new set can be, and what to compare them by."""
    async with open_session(profile) as session:
        old = await policy_of(session, session.profile.trust_domain) or admin_pb2.GetPolicyResponse()
        request = admin_pb2.ApplyPolicyRequest(cedar=cedar, dry_run=True)
        checked = await call(session.admin.ApplyPolicy(request))
        return old, checked, await before_applying(session, time.time()) if with_diff else None


async def _apply(profile: Path | None, cedar: str) -> admin_pb2.ApplyPolicyResponse:
    async with open_session(profile) as session:
        return await call(session.admin.ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=cedar)))


def _in_force(old: admin_pb2.GetPolicyResponse) -> PolicyDocument | None:
    return PolicyDocument(old.cedar, old.digest, old.generation) if old.digest else None


def _show(change: Changed | MeshError) -> None:
    parts: list[RenderableType] = (
        [f"which flows open or close cannot be said: {change.message}"]
        if isinstance(change, MeshError)
        else difference_text(*change)
    )
    emit(Output.TEXT, {}, *parts)


@app.command()
def show(
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="Whose; this authority's if left out.")
    ] = "",
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the policy set in force."""

    async def work() -> admin_pb2.GetPolicyResponse:
        async with open_session(profile) as session:
            request = admin_pb2.GetPolicyRequest(trust_domain=trust_domain)
            return await call(session.admin.GetPolicy(request))

    found = act(work(), output)
    data = {"digest": found.digest, "generation": found.generation, "cedar": found.cedar}
    emit(output, data, f"// {found.digest}, record {found.generation}", found.cedar.rstrip("\n"))


@app.command("test")
def check(
    policies: Annotated[Path, typer.Option("--policies", help="Cedar policies.", dir_okay=False)],
    expect: Annotated[Path, typer.Option("--expect", help="Table of expectations, YAML.", dir_okay=False)],
    output: OutputOption = Output.TEXT,
) -> None:
    """Run an authority's own table of expectations (offline). Exit code 1 if one does not hold."""
    cedar = read_cedar(policies)
    expectations = read_table(read_yaml(expect))
    with progress(f"asking {len(expectations.cases)} cases", output):
        outcomes = run_table(expectations, cedar)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    digest = policy_digest(cedar)
    if output is Output.JSON:
        emit_json(
            {
                "authority": expectations.authority,
                "digest": digest,
                "policies": list(validate_policy(cedar)),
                "passed": len(outcomes) - len(failed),
                "failed": len(failed),
                "cases": [_case_json(outcome) for outcome in outcomes],
            }
        )
    else:
        rows = [
            (
                Text("holds", style="green") if outcome.passed else Text("fails", style="red"),
                outcome.case.name,
                outcome.problem or ", ".join(outcome.verdict.policies) or outcome.verdict.reason,
            )
            for outcome in outcomes
        ]
        console().print(table(("", "CASE", "BY"), rows))
        console().print(f"{len(outcomes) - len(failed)} of {len(outcomes)} hold for {digest}")
    if failed:
        raise MeshError(
            Reason.CONFIG_INVALID,
            f"{len(failed)} of {len(outcomes)} expectations do not hold: {failed[0].case.name}",
        )


def _case_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.case.name,
        "holds": outcome.passed,
        "expected": "permit" if outcome.case.permit else "deny",
        "allowed": outcome.verdict.allowed,
        "policies": list(outcome.verdict.policies),
        "problem": outcome.problem,
    }
