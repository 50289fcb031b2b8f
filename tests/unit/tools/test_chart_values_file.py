"""The comments of values.yaml: what they become, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.chart.generate import HEAD, main, readme_of, schema_of
from tools.chart.shapes import SHAPES
from tools.chart.values import ValuesError, read_values

TEXT = """\
# A title that is no key's description.

# How many.
# @schema {"minimum": 1}
count: 3

# The image.
image:
  # Where it is,
  # in two lines.
  repository: registry.example/node
  # When to pull.
  # @schema {"enum": ["Always", "Never"]}
  pull: Always
  # Labels | of pods.
  # @schema labels
  labels: {}
"""


def schema(text: str = TEXT) -> Any:
    return json.loads(schema_of(read_values(text)))


def test_a_schema_follows_from_default_and_comment() -> None:
    made = schema()
    assert made["additionalProperties"] is False
    assert made["properties"]["count"] == {"description": "How many.", "type": "integer", "minimum": 1}
    image = made["properties"]["image"]
    assert image["additionalProperties"] is False
    assert image["properties"]["repository"] == {
        "description": "Where it is, in two lines.",
        "type": "string",
    }
    assert image["properties"]["pull"]["enum"] == ["Always", "Never"]
    assert image["properties"]["labels"] == {"description": "Labels | of pods.", **SHAPES["labels"]}
    assert "title" not in made["properties"]


def test_the_table_has_every_value_once() -> None:
    text = readme_of("# A chart\n", read_values(TEXT))
    assert text.startswith("# A chart\n")
    assert text.count("`image.repository`") == 1
    assert '| `image.pull` | `"Always"` | When to pull. One of `Always`, `Never`. |' in text
    assert "Labels \\| of pods." in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count: 3\n", "count (line 1): expected a comment"),
        ("# Labels.\nlabels: {}\n", "labels (line 2): an empty mapping needs a line @schema"),
        ("# Names.\nnames: []\n", "names (line 2): a list needs a line @schema"),
        ("# Nothing.\nnothing:\n", "nothing (line 2): a NoneType needs a line @schema"),
        ("# Names.\n# @schema nmaes\nnames: []\n", "names (line 3): no shape is called nmaes"),
        ("# Count.\n# @schema {minimum}\ncount: 3\n", "count (line 3): "),
        ("# In a group.\ngroup:\n  inner: 1\n", "group.inner (line 3): expected a comment"),
        ("- a list\n", "expected a mapping"),
    ],
)
def test_what_breaks_the_rules_is_named(text: str, says: str) -> None:
    with pytest.raises(ValuesError) as caught:
        read_values(text)
    assert says in str(caught.value)


def test_a_file_that_differs_is_found_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "values.yaml").write_text(TEXT)
    (tmp_path / HEAD).write_text("# A chart\n")
    assert main(["--check"], tmp_path) == 1
    assert "README.md is stale" in capsys.readouterr().err
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    (tmp_path / "values.schema.json").write_text("{}")
    assert main(["--check"], tmp_path) == 1
    (tmp_path / "values.yaml").write_text("count: 3\n")
    assert main([], tmp_path) == 1
    assert "expected a comment" in capsys.readouterr().err
