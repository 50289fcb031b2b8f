"""The values that the chart's tests render with: the examples, and settings in pairs.

`FACTORS` are the choices that an operator has, each with the values that it sets; `allowed` says which
contradict one another (the chart refuses them: tests/helm/contradictions.yaml). Every two settings that do
not contradict meet in one case or more.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.chart.pairwise import Choice, pairwise
from tests.support.chart.rendering import CHART, EXAMPLES, Case

Values = dict[str, Any]

DIGEST = "sha256:" + "ab" * 32
POLICY = '@id("all") permit(principal, action, resource) when { resource.location == Jurisdiction::"DE" };\n'
BASE: Values = {
    "trustDomain": "de.mesh.example",
    "node": {"name": "fra"},
    # helm template has no cluster to ask.
    "assumeApiVersions": [
        "ray.io/v1",
        "cert-manager.io/v1",
        "monitoring.coreos.com/v1",
        "gateway.networking.k8s.io/v1",
    ],
}

_VLLM: Values = {"node": {"engine": {"kind": "ray_vllm"}}, "model": {"name": "llama"}}
_CONTROL_ELSEWHERE: Values = {
    "control": {"enabled": False},
    "node": {
        "authority": {
            "enrolment": "control.example.org:7444",
            "renewal": "control.example.org:7443",
            "trustBundleConfigMap": "authority-bundle",
        },
        "enrolment": {"source": "secret", "secretName": "join-tokens"},
    },
    "networkPolicy": {"control": [{"cidr": "192.0.2.10/32", "ports": [7443, 7444]}]},
}
_ETCD_OUTSIDE: Values = {
    "etcd": {"enabled": False},
    "board": {"endpoints": ["etcd-1.example.org:2379"], "tlsSecretName": "board-client"},
    "networkPolicy": {"board": [{"cidr": "192.0.2.20/31", "ports": [2379]}]},
}

FACTORS: Mapping[str, Mapping[str, Values]] = {
    "engine": {
        "scripted": {"node": {"engine": {"kind": "scripted"}}, "model": {"source": "none"}},
        "cpu": _VLLM,
        "gpu": {
            "node": {
                "engine": {
                    "kind": "ray_vllm",
                    "gpu": {"enabled": True},
                    "tensorParallel": 2,
                    "pipelineParallel": 2,
                    "replicas": 2,
                },
                "runtimeClassName": "nvidia",
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            },
            "model": {"name": "llama"},
        },
        "kuberay": {**_VLLM, "ray": {"mode": "kuberay"}},
        "kuberay-gpu": {
            "node": {"engine": {"kind": "ray_vllm", "gpu": {"enabled": True}, "tensorParallel": 2}},
            "model": {"name": "llama"},
            "ray": {"mode": "kuberay", "kuberay": {"worker": {"gpus": 2, "replicas": 2}}},
        },
    },
    "model": {
        "none": {},
        "volume": {"model": {"source": "volume", "persistence": {"existingClaim": "models"}}},
        "hub": {
            "model": {
                "source": "hub",
                "from": "example/llama@0123456",
                "digest": DIGEST,
                "fetch": {"secretName": "hub-token"},
                "persistence": {"accessMode": "ReadWriteMany"},
            }
        },
        "objectStore": {
            "model": {
                "source": "objectStore",
                "from": "s3://models/llama",
                "digest": DIGEST,
                "fetch": {"egress": [{"cidr": "192.0.2.40/32", "ports": [9000]}]},
                "persistence": {"accessMode": "ReadWriteMany"},
            }
        },
    },
    "control": {"here": {}, "elsewhere": _CONTROL_ELSEWHERE},
    "authority": {
        "job": {},
        "secret": {"authority": {"source": "secret", "secretName": "root"}},
        "certManager": {"authority": {"source": "certManager"}},
    },
    "enrolment": {
        "job": {"node": {"enrolment": {"source": "job"}}},
        "secret": {"node": {"enrolment": {"source": "secret", "secretName": "join-tokens"}}},
    },
    "etcd": {
        "three": {},
        "one": {"etcd": {"replicas": 1, "backup": {"enabled": False}}},
        "exposed": {
            "etcd": {
                "expose": {"enabled": True, "loadBalancerSourceRanges": ["198.51.100.0/24"]},
                "tls": {"extraDnsNames": ["etcd.example.org"], "clients": ["fr"]},
            },
            "networkPolicy": {"etcdClients": {"cidrs": ["198.51.100.0/24"], "namespaces": ["mesh-fr"]}},
        },
        "outside": _ETCD_OUTSIDE,
    },
    "etcdTls": {
        "job": {},
        "certManager": {"etcd": {"tls": {"source": "certManager"}}},
        "secret": {
            "etcd": {
                "tls": {
                    "source": "secret",
                    "serverSecretName": "etcd-server",
                    "clientSecretName": "etcd-client",
                }
            }
        },
    },
    "nodes": {"one": {}, "three": {"node": {"replicas": 3, "firstOrdinal": 1}}},
    "reached": {
        "inside": {},
        "balancers": {
            "node": {
                "service": {"perNode": True, "annotations": {"dns/hostname": "{node}.example.org"}},
                "advertise": {"address": "{node}.example.org:7443"},
            },
            "networkPolicy": {
                "from": {"cidrs": ["203.0.113.0/24"]},
                "peers": {"destinations": [{"cidr": "203.0.113.0/24", "ports": [7443]}]},
            },
        },
        "gateway": {
            "node": {
                "advertise": {"address": "{node}.example.org:443"},
                "service": {"perNode": True, "type": "ClusterIP"},
            },
            "gateway": {
                "enabled": True,
                "apiVersion": "gateway.networking.k8s.io/v1",
                "parentRefs": [{"name": "edge", "namespace": "gateways", "sectionName": "mesh"}],
                "namespace": "gateways",
                "control": True,
            },
            "networkPolicy": {"peers": {"namespaces": ["mesh-fr"]}, "from": {"namespaces": ["mesh-fr"]}},
        },
    },
    "watched": {
        "no": {},
        "serviceMonitor": {
            "monitoring": {
                "namespace": "monitoring",
                "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
                "prometheusRule": {"enabled": True},
                "dashboards": {"enabled": True},
            }
        },
        "podMonitor": {
            "monitoring": {
                "namespace": "monitoring",
                "podLabels": {"app.kubernetes.io/name": "prometheus"},
                "podMonitor": {"enabled": True},
            }
        },
    },
    "networkPolicy": {"on": {}, "off": {"networkPolicy": {"enabled": False}}},
    "traced": {
        "no": {},
        "yes": {
            "tracing": {
                "endpoint": "otel.observability.svc:4317",
                "caSecretName": "otel-ca",
                "namespace": "observability",
            }
        },
    },
    "policy": {
        "none": {},
        "text": {"policy": {"cedar": POLICY, "applyOnUpgrade": True}},
        "configMap": {"policy": {"existingConfigMap": "policy"}},
    },
    "more": {
        "no": {},
        "yes": {
            "commonLabels": {"team": "platform"},
            "imagePullSecrets": ["registry"],
            "image": {"repository": "registry.internal:5000/node", "digest": DIGEST},
            "node": {
                "priorityClassName": "high",
                "nodeSelector": {"zone": "a"},
                "podAnnotations": {"note": "yes"},
                "env": [{"name": "TZ", "value": "UTC"}],
                "config": {"placement": {"permit_ttl_s": 30}},
                "retrieval": {"enabled": False},
                "witnesses": 0,
            },
            "control": {"config": {"placement": {"permit_ttl_s": 30}}},
            "podDisruptionBudget": {"enabled": False},
            "test": {"enabled": False},
            "log": {"level": "debug"},
            "nameOverride": "mesh",
        },
    },
}


def allowed(choice: Choice) -> bool:
    """Whether these settings, perhaps with some still missing, contradict one another."""

    def both(one: str, ones: set[str], other: str, others: set[str]) -> bool:
        return choice.get(one) in ones and choice.get(other) in others

    return not (
        both("engine", {"scripted"}, "model", {"volume", "hub", "objectStore"})
        or both("engine", set(FACTORS["engine"]) - {"scripted"}, "model", {"none"})
        or both("control", {"elsewhere"}, "authority", {"secret", "certManager"})
        or both("control", {"elsewhere"}, "enrolment", {"job"})
        or both("control", {"elsewhere"}, "policy", {"text", "configMap"})
        or both("etcd", {"outside"}, "etcdTls", {"certManager", "secret"})
        or both("etcd", {"exposed"}, "etcdTls", {"secret"})
    )


def merged(*layers: Mapping[str, Any]) -> Values:
    """The layers as helm would merge files of values: the later wins, objects are merged."""
    result: Values = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
                result[key] = merged(result[key], value)
            else:
                result[key] = merged(value) if isinstance(value, Mapping) else value
    return result


def effective(case: Case) -> Values:
    """What the chart sees: its defaults, the case's files, and the case's own values on top."""
    files = [yaml.safe_load(path.read_text()) for path in case.files]
    return merged(yaml.safe_load((CHART / "values.yaml").read_text()), *files, case.values)


@functools.cache
def _matrix() -> tuple[Case, ...]:
    return tuple(
        Case(
            f"pairs-{number:02}",
            merged(BASE, *(FACTORS[factor][value] for factor, value in choice.items())),
        )
        for number, choice in enumerate(
            pairwise({name: list(all_) for name, all_ in FACTORS.items()}, allowed)
        )
    )


def _examples() -> tuple[Case, ...]:
    """Every file of values among the examples is one installation; other files there are no values."""
    found = []
    for path in sorted(EXAMPLES.glob("*/*.yaml")):
        values = next(iter(yaml.safe_load_all(path.read_text())))
        if "kind" not in values:
            found.append(Case("-".join(path.relative_to(EXAMPLES).with_suffix("").parts), files=(path,)))
    return tuple(found)


EXAMPLE_CASES = _examples()
MATRIX = _matrix()
CASES = (*EXAMPLE_CASES, *MATRIX)
