"""Holds manifests against Kubernetes' schemas and those of custom resources. Runs in .venv-chart, not in
.venv.

Reads {"manifests": [...], "versions": ["1.30", ...], "schemas": folder} from standard input and writes a
list of {"manifest": number, "against": text, "problem": text}. Every schema is strict: a field that it does
not know is a problem, though an API server would drop it silently.

Sources: Kubernetes' own schemas from kubernetes-validate; cert-manager's and the Prometheus operator's from
cloudcoil's models of their definitions; KubeRay's and Gateway API's from tests/helm/schemas.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils as kubernetes_schemas
import yaml

# Read once per process, not once per manifest.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)
kubernetes_schemas.all_versions = functools.cache(kubernetes_schemas.all_versions)


def closed(schema: Any) -> Any:
    """The schema with every object that lists its properties closed to others, and null nowhere."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if "anyOf" in result:
        options = [option for option in result.pop("anyOf") if option != {"type": "null"}]
        # A single option is put in place, so that a problem is told where it is.
        result.update(options[0] if len(options) == 1 else {"anyOf": options})
    if isinstance(result.get("properties"), dict) and result["properties"] and result.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


@functools.cache
def custom(api_version: str, kind: str, folder: Path) -> Any:
    """A validator for a custom resource, or None where it is none that we know."""
    group, _, version = api_version.rpartition("/")
    if (group, version) == ("cert-manager.io", "v1"):
        from cloudcoil.models.cert_manager import v1 as models
    elif (group, version) == ("monitoring.coreos.com", "v1"):
        from cloudcoil.models.prometheus_operator import v1 as models
    else:
        path = folder / f"{group}.yaml"
        if not group or not path.exists():
            return None
        known = yaml.safe_load(path.read_text())
        if kind not in known:
            return None
        schema = {**known[kind], "definitions": known["definitions"]}
        return jsonschema.Draft202012Validator(schema)
    schema = closed(getattr(models, kind).model_json_schema(by_alias=True))
    return jsonschema.Draft202012Validator(schema)


def parts(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is of a kind of Kubernetes inside a custom resource: pod templates and Services."""
    if not manifest["apiVersion"].startswith("ray.io/"):
        return
    spec = manifest["spec"]
    cluster = spec.get("rayClusterConfig", spec)
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for group in groups:
        name = group.get("groupName", "head")
        yield {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": name},
            "template": group["template"],
        }
    for service in (cluster["headGroupSpec"].get("headService"), spec.get("serveService")):
        if service is not None:
            yield {"apiVersion": "v1", "kind": "Service", **service}


def place(error: jsonschema.ValidationError) -> str:
    return f"{'.'.join(str(step) for step in error.absolute_path)}: {error.message[:500]}"


def problems(manifest: dict[str, Any], versions: list[str], folder: Path) -> Iterator[tuple[str, str]]:
    """(what it was held against, what is wrong) for one manifest."""
    api_version, kind = manifest["apiVersion"], manifest["kind"]
    validator = custom(api_version, kind, folder)
    if validator is not None:
        wrong = list(validator.iter_errors(manifest))
        for error in wrong:
            yield f"{api_version} {kind}", place(error)
        if not wrong:
            for part in parts(manifest):
                for against, problem in problems(part, versions, folder):
                    yield against, f"in {kind}, {part['kind']} {part['metadata']['name']}: {problem}"
        return
    for version in versions:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}", place(error)
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"Kubernetes {version}", error.message


def main() -> None:
    """Answer one batch."""
    asked = json.load(sys.stdin)
    found = [
        {"manifest": number, "against": against, "problem": problem}
        for number, manifest in enumerate(asked["manifests"])
        for against, problem in problems(manifest, asked["versions"], Path(asked["schemas"]))
    ]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
