"""The options with which a request says what it carries: the same for place, chat and embed."""

from __future__ import annotations

from typing import Annotated

import typer

from mesh.core.types import DataClass, RequestContext

_CLASSES = ", ".join(DataClass)


def _complete_class(incomplete: str) -> list[str]:
    return [c for c in DataClass if c.startswith(incomplete)]


ClassOption = Annotated[
    list[str],
    typer.Option(
        "--class",
        "-c",
        help=f"What kind of data it carries: {_CLASSES}. Repeatable.",
        autocompletion=_complete_class,
    ),
]
PurposeOption = Annotated[str, typer.Option("--purpose", "-p", help="What for, such as care/triage.")]
BasisOption = Annotated[
    str, typer.Option("--transfer-basis", help="Legal basis of a transfer, such as adequacy.")
]
OnlyInOption = Annotated[
    list[str] | None,
    typer.Option(
        "--jurisdiction", "-j", help="Narrow to nodes in this country (ISO 3166, upper case). Repeatable."
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option("--assurance", "-a", help="Narrow to nodes with this assurance, such as C5. Repeatable."),
]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="The model's name; any if left out.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds for all of it.", min=0.1, max=3600)]


def context_of(
    data_class: list[str],
    purpose: str,
    transfer_basis: str,
    only_in: list[str] | None,
    require: list[str] | None,
) -> RequestContext:
    """The context that the options describe; a MeshError says which option is wrong."""
    return RequestContext.of(
        data_class,
        purpose,
        transfer_basis=transfer_basis,
        allowed_jurisdictions=only_in or (),
        required_assurances=require or (),
    )
