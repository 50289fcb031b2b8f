{{/*
Values that contradict each other: each fails with one sentence, "sovereign-mesh: PATH: SENTENCE". What a single value
may be is said by values.schema.json. tests/helm/contradictions.yaml has a case for each.
*/}}
{{- define "sovereign-mesh.validate" -}}
{{- $v := .Values -}}
{{- if not $v.trustDomain -}}
{{- fail "sovereign-mesh: trustDomain: name the authority's trust domain, country first, such as de.mesh.example" -}}
{{- end -}}
{{- if not (or $v.node.enabled $v.control.enabled $v.etcd.enabled) -}}
{{- fail "sovereign-mesh: node.enabled: a release without node, control plane and etcd has nothing to run" -}}
{{- end -}}
{{- if and $v.maintenance.enabled (not $v.maintenance.backupClaim) -}}
{{- fail "sovereign-mesh: maintenance.backupClaim: name the claim that backups are kept in" -}}
{{- end -}}
{{- include "sovereign-mesh.validateBoard" . -}}
{{- if $v.control.enabled -}}{{- include "sovereign-mesh.validateControl" . -}}{{- end -}}
{{- if not $v.control.enabled -}}
{{- if or $v.policy.cedar $v.policy.existingConfigMap -}}
{{- fail "sovereign-mesh: policy: policies are published by the control plane, which control.enabled leaves out" -}}
{{- end -}}
{{- if $v.trust.bundles -}}
{{- fail "sovereign-mesh: trust.bundles: bundles are accepted by the control plane, which control.enabled leaves out" -}}
{{- end -}}
{{- end -}}
{{- if $v.node.enabled -}}
{{- include "sovereign-mesh.validateNode" . -}}
{{- include "sovereign-mesh.validateModel" . -}}
{{- include "sovereign-mesh.validateRay" . -}}
{{- end -}}
{{- include "sovereign-mesh.validateNetwork" . -}}
{{- include "sovereign-mesh.validateMonitoring" . -}}
{{- end -}}

{{- define "sovereign-mesh.validateBoard" -}}
{{- $v := .Values -}}
{{- if $v.etcd.enabled -}}
{{- if $v.board.endpoints -}}
{{- fail "sovereign-mesh: board.endpoints: name an external etcd or set etcd.enabled, not both" -}}
{{- end -}}
{{- if or $v.board.tlsSecretName $v.board.serverName $v.board.user -}}
{{- fail "sovereign-mesh: board: tlsSecretName, serverName and user are for an external etcd, and etcd.enabled is set" -}}
{{- end -}}
{{- if eq $v.etcd.tls.source "secret" -}}
{{- if not (and $v.etcd.tls.serverSecretName $v.etcd.tls.clientSecretName) -}}
{{- fail "sovereign-mesh: etcd.tls.source: secret needs serverSecretName and clientSecretName" -}}
{{- end -}}
{{- else if or $v.etcd.tls.serverSecretName $v.etcd.tls.clientSecretName -}}
{{- fail "sovereign-mesh: etcd.tls.serverSecretName: Secrets of your own are for etcd.tls.source: secret" -}}
{{- end -}}
{{- if eq $v.etcd.tls.source "none" -}}
{{- if or (gt (int $v.etcd.replicas) 1) $v.etcd.expose.enabled -}}
{{- fail "sovereign-mesh: etcd.tls.source: none is for one member that nobody outside reaches" -}}
{{- end -}}
{{- end -}}
{{- if and $v.etcd.tls.clients (has $v.etcd.tls.source (list "secret" "none")) -}}
{{- fail "sovereign-mesh: etcd.tls.clients: further clients need etcd.tls.source: job or certManager" -}}
{{- end -}}
{{- if eq $v.etcd.tls.source "certManager" -}}
{{- include "sovereign-mesh.needsCertManager" (dict "root" . "path" "etcd.tls.source") -}}
{{- end -}}
{{- else -}}
{{- if $v.etcd.expose.enabled -}}
{{- fail "sovereign-mesh: etcd.expose.enabled: there is no etcd in this release to expose" -}}
{{- end -}}
{{- if and (or $v.node.enabled $v.control.enabled) (not $v.board.endpoints) -}}
{{- fail "sovereign-mesh: board.endpoints: without etcd.enabled, name the endpoints of an external etcd" -}}
{{- end -}}
{{- if ne (empty $v.board.user) (empty $v.board.passwordSecret.name) -}}
{{- fail "sovereign-mesh: board.user: user and passwordSecret.name belong together" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateControl" -}}
{{- $v := .Values -}}
{{- if and (eq $v.authority.source "secret") (not $v.authority.secretName) -}}
{{- fail "sovereign-mesh: authority.secretName: authority.source: secret needs the name of the Secret" -}}
{{- end -}}
{{- if eq $v.authority.source "certManager" -}}
{{- include "sovereign-mesh.needsCertManager" (dict "root" . "path" "authority.source") -}}
{{- end -}}
{{- if lt (float64 $v.control.heads.maxAgeSeconds) (mulf 3.0 (float64 $v.control.heads.intervalSeconds)) -}}
{{- fail "sovereign-mesh: control.heads.maxAgeSeconds: it must be at least three times intervalSeconds, or one late record closes borders" -}}
{{- end -}}
{{- if and $v.policy.cedar $v.policy.existingConfigMap -}}
{{- fail "sovereign-mesh: policy.existingConfigMap: give the policies as text or as a ConfigMap, not both" -}}
{{- end -}}
{{- if and $v.policy.applyOnUpgrade (not (or $v.policy.cedar $v.policy.existingConfigMap)) -}}
{{- fail "sovereign-mesh: policy.applyOnUpgrade: there are no policies to apply: set policy.cedar or policy.existingConfigMap" -}}
{{- end -}}
{{- if hasKey $v.control.config "name" -}}
{{- fail "sovereign-mesh: control.config.name: nodes and Jobs of the chart know the control plane as main" -}}
{{- end -}}
{{- $seen := list $v.trustDomain -}}
{{- range $v.trust.bundles -}}
{{- if has .trustDomain $seen -}}
{{- fail (printf "sovereign-mesh: trust.bundles: %s appears twice, or is the authority itself" .trustDomain) -}}
{{- end -}}
{{- $seen = append $seen .trustDomain -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateNode" -}}
{{- $v := .Values -}}
{{- if $v.control.enabled -}}
{{- if or $v.node.authority.enrolment $v.node.authority.renewal $v.node.authority.trustBundle $v.node.authority.trustBundleConfigMap -}}
{{- fail "sovereign-mesh: node.authority: the control plane is in this release, so there is no other to name" -}}
{{- end -}}
{{- else -}}
{{- if not (and $v.node.authority.enrolment $v.node.authority.renewal) -}}
{{- fail "sovereign-mesh: node.authority: without control.enabled, name enrolment and renewal of the authority's control plane" -}}
{{- end -}}
{{- if eq (empty $v.node.authority.trustBundle) (empty $v.node.authority.trustBundleConfigMap) -}}
{{- fail "sovereign-mesh: node.authority.trustBundle: without control.enabled, give the authority's bundle as text or as a ConfigMap, and not both" -}}
{{- end -}}
{{- if eq $v.node.enrolment.source "job" -}}
{{- fail "sovereign-mesh: node.enrolment.source: without control.enabled, join tokens come from a Secret" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.node.enrolment.source "secret") (not $v.node.enrolment.secretName) -}}
{{- fail "sovereign-mesh: node.enrolment.secretName: node.enrolment.source: secret needs the name of the Secret" -}}
{{- end -}}
{{- /* After the requests the log is closed and flushed, and the engine stopped. */ -}}
{{- if lt (float64 $v.node.terminationGracePeriodSeconds) (addf 15.0 (float64 $v.node.serving.drainGraceSeconds)) -}}
{{- fail "sovereign-mesh: node.terminationGracePeriodSeconds: it must be at least 15 more than node.serving.drainGraceSeconds, or a node is killed while it drains" -}}
{{- end -}}
{{- $address := $v.node.advertise.address -}}
{{- if and $v.node.service.perNode (ne $v.node.service.type "ClusterIP") (not $address) -}}
{{- fail "sovereign-mesh: node.advertise.address: nodes with a Service for the outside have to say where they are reached" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $address) -}}
{{- fail "sovereign-mesh: node.advertise.address: nodes behind a Gateway have to say where that is reached" -}}
{{- end -}}
{{- if and $address (gt (int $v.node.replicas) 1) (not (contains "{node}" $address)) (not $v.gateway.enabled) -}}
{{- fail "sovereign-mesh: node.advertise.address: several nodes cannot be reached at one address: put {node} into it" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "sovereign-mesh: gateway.parentRefs: name the Gateway that the routes belong to" -}}
{{- end -}}
{{- if and $v.gateway.enabled $v.node.service.perNode (ne $v.node.service.type "ClusterIP") -}}
{{- fail "sovereign-mesh: node.service.type: behind a Gateway the nodes' own Services are of type ClusterIP" -}}
{{- end -}}
{{- range $path := list "listen" "state_directory" "identity" -}}
{{- if hasKey $v.node.config $path -}}
{{- fail (printf "sovereign-mesh: node.config.%s: the chart's Services and volumes rely on it" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateModel" -}}
{{- $v := .Values -}}
{{- if eq $v.node.engine.kind "scripted" -}}
{{- if ne $v.model.source "none" -}}
{{- fail "sovereign-mesh: model.source: the scripted engine serves no model: none" -}}
{{- end -}}
{{- if $v.node.engine.gpu.enabled -}}
{{- fail "sovereign-mesh: node.engine.gpu.enabled: the scripted engine has no use for GPUs" -}}
{{- end -}}
{{- else -}}
{{- if eq $v.model.source "none" -}}
{{- fail "sovereign-mesh: model.source: ray_vllm needs a model: volume, hub or objectStore" -}}
{{- end -}}
{{- if not $v.model.name -}}
{{- fail "sovereign-mesh: model.name: name the model that callers ask for" -}}
{{- end -}}
{{- if include "sovereign-mesh.fetches" . -}}
{{- if not (and $v.model.from $v.model.digest) -}}
{{- fail "sovereign-mesh: model.digest: what is fetched needs model.from and model.digest" -}}
{{- end -}}
{{- if and (eq $v.model.source "objectStore") (not (regexMatch "^(s3|https)://" $v.model.from)) -}}
{{- fail "sovereign-mesh: model.from: an object store is s3://... or https://..." -}}
{{- end -}}
{{- if and (eq $v.model.source "hub") (regexMatch "^[a-z0-9]+://" $v.model.from) -}}
{{- fail "sovereign-mesh: model.from: a hub's model is ID or ID@REVISION; addresses are for model.source: objectStore" -}}
{{- end -}}
{{- else -}}
{{- if $v.model.from -}}
{{- fail "sovereign-mesh: model.from: a model in a volume is not fetched" -}}
{{- end -}}
{{- if not $v.model.persistence.existingClaim -}}
{{- fail "sovereign-mesh: model.persistence.existingClaim: model.source: volume needs the claim that holds the model" -}}
{{- end -}}
{{- end -}}
{{- $readers := int $v.node.replicas -}}
{{- if eq $v.ray.mode "kuberay" -}}{{- $readers = mul $readers (int $v.ray.kuberay.worker.replicas) -}}{{- end -}}
{{- if and (gt (int $readers) 1) (eq $v.model.persistence.accessMode "ReadWriteOnce") (not $v.model.persistence.existingClaim) -}}
{{- fail "sovereign-mesh: model.persistence.accessMode: several nodes or workers need ReadWriteMany" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateRay" -}}
{{- $v := .Values -}}
{{- if eq $v.ray.mode "kuberay" -}}
{{- if eq $v.node.engine.kind "scripted" -}}
{{- fail "sovereign-mesh: ray.mode: the scripted engine runs without Ray: inPod" -}}
{{- end -}}
{{- if not (include "sovereign-mesh.hasApi" (dict "root" . "api" "ray.io/v1")) -}}
{{- fail "sovereign-mesh: ray.mode: kuberay needs the KubeRay operator, and the cluster has no ray.io/v1; where it cannot be asked, set assumeApiVersions" -}}
{{- end -}}
{{- if and (eq $v.ray.kuberay.tls.source "secret") (not (and $v.ray.kuberay.tls.replicaSecretName $v.ray.kuberay.tls.gatewaySecretName)) -}}
{{- fail "sovereign-mesh: ray.kuberay.tls.source: secret needs replicaSecretName and gatewaySecretName" -}}
{{- end -}}
{{- if eq $v.ray.kuberay.tls.source "certManager" -}}
{{- include "sovereign-mesh.needsCertManager" (dict "root" . "path" "ray.kuberay.tls.source") -}}
{{- end -}}
{{- with $v.node.engine -}}
{{- $each := mul (int .tensorParallel) (int .pipelineParallel) -}}
{{- $room := mul (int $v.ray.kuberay.worker.replicas) (div (int $v.ray.kuberay.worker.gpus) $each) -}}
{{- if and .gpu.enabled (lt $room (int .replicas)) -}}
{{- fail (printf "sovereign-mesh: ray.kuberay.worker: a copy of the engine needs %d GPUs in one worker, and there is room for %d of %d" $each $room (int .replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateNetwork" -}}
{{- $v := .Values -}}
{{- if $v.networkPolicy.enabled -}}
{{- if and (or $v.node.enabled $v.control.enabled) (not $v.etcd.enabled) (not $v.networkPolicy.board) -}}
{{- fail "sovereign-mesh: networkPolicy.board: say where the external etcd is, or nothing can reach it" -}}
{{- end -}}
{{- if and $v.node.enabled (not $v.control.enabled) (not $v.networkPolicy.control) -}}
{{- fail "sovereign-mesh: networkPolicy.control: say where the authority's control plane is, or nodes cannot enrol and renew" -}}
{{- end -}}
{{- range $path := list "peers" "board" "control" "vectorStore" -}}
{{- $destinations := get $v.networkPolicy $path -}}
{{- if eq $path "peers" -}}{{- $destinations = $v.networkPolicy.peers.destinations -}}{{- end -}}
{{- range $destinations -}}
{{- if hasSuffix "/0" .cidr -}}
{{- fail (printf "sovereign-mesh: networkPolicy.%s: %s is everywhere, and a node may not reach out" $path .cidr) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $v.networkPolicy.kubernetesApi.cidrs -}}
{{- fail "sovereign-mesh: networkPolicy.kubernetesApi.cidrs: say where the Kubernetes API is: an empty list would mean everywhere" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.namespace) -}}
{{- fail "sovereign-mesh: gateway.namespace: say where the Gateway's pods are, or they cannot reach the nodes" -}}
{{- end -}}
{{- if and (or $v.monitoring.serviceMonitor.enabled $v.monitoring.podMonitor.enabled) (not $v.monitoring.namespace) -}}
{{- fail "sovereign-mesh: monitoring.namespace: say where Prometheus is, or it cannot read the metrics" -}}
{{- end -}}
{{- if and $v.tracing.endpoint (not $v.tracing.destinations) (not $v.tracing.namespace) -}}
{{- fail "sovereign-mesh: tracing.destinations: say where the collector is, or nothing can reach it" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.validateMonitoring" -}}
{{- $v := .Values -}}
{{- if and $v.monitoring.serviceMonitor.enabled $v.monitoring.podMonitor.enabled -}}
{{- fail "sovereign-mesh: monitoring.podMonitor.enabled: with a ServiceMonitor as well everything would be counted twice" -}}
{{- end -}}
{{- if or $v.monitoring.serviceMonitor.enabled $v.monitoring.podMonitor.enabled $v.monitoring.prometheusRule.enabled -}}
{{- if not (include "sovereign-mesh.hasApi" (dict "root" . "api" "monitoring.coreos.com/v1")) -}}
{{- fail "sovereign-mesh: monitoring: monitors and rules need the Prometheus operator, and the cluster has no monitoring.coreos.com/v1; where it cannot be asked, set assumeApiVersions" -}}
{{- end -}}
{{- end -}}
{{- if and $v.gateway.enabled (not (include "sovereign-mesh.hasApi" (dict "root" . "api" $v.gateway.apiVersion))) -}}
{{- fail (printf "sovereign-mesh: gateway.apiVersion: the cluster has no %s; where it cannot be asked, set assumeApiVersions" $v.gateway.apiVersion) -}}
{{- end -}}
{{- if and $v.tracing.caSecretName (not $v.tracing.endpoint) -}}
{{- fail "sovereign-mesh: tracing.caSecretName: there is no tracing.endpoint to check" -}}
{{- end -}}
{{- end -}}

{{/* dict root, path */}}
{{- define "sovereign-mesh.needsCertManager" -}}
{{- if not (include "sovereign-mesh.hasApi" (dict "root" .root "api" "cert-manager.io/v1")) -}}
{{- fail (printf "sovereign-mesh: %s: certManager needs cert-manager, and the cluster has no cert-manager.io/v1; where it cannot be asked, set assumeApiVersions" .path) -}}
{{- end -}}
{{- end -}}
