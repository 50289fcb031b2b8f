"""`meshctl policy`: applying, showing and testing an authority's policies.

`policy test` is offline: it runs a table of expectations against a file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from control.cli.output import Output, OutputOption, console, emit, emit_json, progress, table
from control.cli.session import ProfileOption, act, call, open_session
from mesh.core.errors import MeshError, Reason
from mesh.core.expectations import Outcome, read_table, run_table
from mesh.core.policy import validate_policy
from mesh.identity.private_files import read_file
from mesh.settings import read_yaml
from sovereign.mesh.v1 import admin_pb2

MAX_FILE_BYTES = 1024 * 1024

app = typer.Typer(help="Apply, show and test this authority's policies.")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="Cedar policies, each with an @id.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; change nothing.")] = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a policy set in force everywhere, within a second. A bad one changes nothing."""
    cedar = _read(file)

    async def work() -> tuple[admin_pb2.GetPolicyResponse, admin_pb2.ApplyPolicyResponse]:
        async with open_session(profile) as session:
            old = admin_pb2.GetPolicyResponse()
            try:
                old = await call(session.admin.GetPolicy(admin_pb2.GetPolicyRequest()))
            except MeshError as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
            request = admin_pb2.ApplyPolicyRequest(cedar=cedar, dry_run=dry_run)
            return old, await call(session.admin.ApplyPolicy(request))

    old, new = act(work(), output, "applying")
    emit(
        output,
        {
            "dry_run": dry_run,
            "old": {"digest": old.digest, "generation": old.generation},
            "new": {"digest": new.digest, "generation": new.generation},
            "policies": list(new.policy_ids),
        },
        f"{'checked' if dry_run else 'in force'}: {old.digest or 'nothing'} -> {new.digest}",
        f"{len(new.policy_ids)} policies: {', '.join(new.policy_ids)}",
    )


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
    cedar = _read(policies)
    expectations = read_table(read_yaml(expect))
    with progress(f"asking {len(expectations.cases)} cases", output):
        outcomes = run_table(expectations, cedar)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    digest = "sha256:" + hashlib.sha256(cedar.encode()).hexdigest()
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


def _read(file: Path) -> str:
    try:
        return read_file(file, limit=MAX_FILE_BYTES).decode()
    except UnicodeDecodeError:
        raise MeshError(Reason.POLICY_MALFORMED, f"{file}: expected UTF-8 text") from None
