"""The options that search, ask and fetch share, besides those of every request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import FILTER_FIELDS, ReleaseLevel


class Level(StrEnum):
    """Release levels as people write them."""

    COUNT = ReleaseLevel.COUNT.word
    REFERENCE = ReleaseLevel.REFERENCE.word
    SNIPPET = ReleaseLevel.SNIPPET.word
    PASSAGE = ReleaseLevel.PASSAGE.word


CollectionArgument = Annotated[str, typer.Argument(help="The collection's name.", metavar="COLLECTION")]
QuestionArgument = Annotated[
    str,
    typer.Argument(
        help='The question; "-" reads it from standard input, which others cannot see.', metavar="QUESTION"
    ),
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help=f"field=value; fields: {', '.join(sorted(FILTER_FIELDS))}. Repeatable: of one field any value "
        "will do, all fields must hold.",
        metavar="FIELD=VALUE",
    ),
]


def filters_of(words: list[str] | None) -> dict[str, list[str]]:
    """Filters from field=value words; raises REQUEST_INVALID. Fields are checked with the question."""
    found: dict[str, list[str]] = {}
    for word in words or ():
        field, equals, value = word.partition("=")
        if not (field and equals and value):
            raise MeshError(Reason.REQUEST_INVALID, "--filter: expected field=value")
        found.setdefault(field, []).append(value)
    return found
