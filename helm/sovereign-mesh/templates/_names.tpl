{{/* Names, labels, addresses and images. Nothing here makes an object. */}}

{{- define "sovereign-mesh.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Room for the longest suffix, "-etcd-client-NAME" or "-node-10000-ray-head-svc", within 63 characters. */}}
{{- define "sovereign-mesh.fullname" -}}
{{- $name := include "sovereign-mesh.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name -}}{{- $full = .Release.Name -}}{{- end -}}
{{- default $full .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- end -}}

{{- define "sovereign-mesh.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sovereign-mesh
{{ include "sovereign-mesh.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: nothing that changes with the chart's version alone, which would restart them. */}}
{{- define "sovereign-mesh.podLabels" -}}
{{ include "sovereign-mesh.selector" . }}
app.kubernetes.io/part-of: sovereign-mesh
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.selector" -}}
app.kubernetes.io/name: {{ include "sovereign-mesh.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sovereign-mesh.image" -}}
{{- $tag := .Values.image.tag -}}
{{- if not $tag -}}
{{- $tag = .Chart.AppVersion -}}
{{- if .Values.node.engine.gpu.enabled -}}{{- $tag = printf "%s-gpu" $tag -}}{{- end -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* Of control plane and Jobs. */}}
{{- define "sovereign-mesh.controlImage" -}}
{{- with .Values.image -}}
{{- if .control.digest -}}
{{ .repository }}@{{ .control.digest }}
{{- else if .control.tag -}}
{{ .repository }}:{{ .control.tag }}
{{- else if or .tag .digest -}}
{{ include "sovereign-mesh.image" $ }}
{{- else -}}
{{ .repository }}:{{ $.Chart.AppVersion }}-control
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.etcdImage" -}}
{{- if .Values.etcd.image.digest -}}
{{ .Values.etcd.image.repository }}@{{ .Values.etcd.image.digest }}
{{- else -}}
{{ .Values.etcd.image.repository }}:{{ .Values.etcd.image.tag }}
{{- end -}}
{{- end -}}

{{/* Whether the cluster, or the one who renders, has an API version: dict root, api. */}}
{{- define "sovereign-mesh.hasApi" -}}
{{- if or (.root.Capabilities.APIVersions.Has .api) (has .api .root.Values.assumeApiVersions) -}}yes{{- end -}}
{{- end -}}

{{/* What is in the cluster's DNS for an object of this namespace: dict root, name. */}}
{{- define "sovereign-mesh.host" -}}
{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{- define "sovereign-mesh.controlName" -}}{{ include "sovereign-mesh.fullname" . }}-control{{- end -}}
{{- define "sovereign-mesh.nodeName" -}}{{ include "sovereign-mesh.fullname" . }}-node{{- end -}}
{{- define "sovereign-mesh.headlessName" -}}{{ include "sovereign-mesh.fullname" . }}-nodes{{- end -}}
{{- define "sovereign-mesh.etcdName" -}}{{ include "sovereign-mesh.fullname" . }}-etcd{{- end -}}

{{- define "sovereign-mesh.authoritySecret" -}}
{{- default (printf "%s-authority" (include "sovereign-mesh.fullname" .)) .Values.authority.secretName -}}
{{- end -}}

{{- define "sovereign-mesh.etcdServerSecret" -}}
{{- if eq .Values.etcd.tls.source "secret" -}}{{ .Values.etcd.tls.serverSecretName }}
{{- else -}}{{ include "sovereign-mesh.etcdName" . }}-server{{- end -}}
{{- end -}}

{{/* The Secret to reach the board with; empty where it is not encrypted. */}}
{{- define "sovereign-mesh.boardSecret" -}}
{{- if not .Values.etcd.enabled -}}{{ .Values.board.tlsSecretName }}
{{- else if eq .Values.etcd.tls.source "secret" -}}{{ .Values.etcd.tls.clientSecretName }}
{{- else if ne .Values.etcd.tls.source "none" -}}{{ include "sovereign-mesh.etcdName" . }}-client{{- end -}}
{{- end -}}

{{/* Addresses of the control plane: with this release's own, or as the values say. */}}
{{- define "sovereign-mesh.enrolmentAddress" -}}
{{- if .Values.control.enabled -}}
{{ include "sovereign-mesh.host" (dict "root" . "name" (include "sovereign-mesh.controlName" .)) }}:7444
{{- else -}}{{ .Values.node.authority.enrolment }}{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.renewalAddress" -}}
{{- if .Values.control.enabled -}}
{{ include "sovereign-mesh.host" (dict "root" . "name" (include "sovereign-mesh.controlName" .)) }}:7443
{{- else -}}{{ .Values.node.authority.renewal }}{{- end -}}
{{- end -}}

{{/* The country of the trust domain, upper case. */}}
{{- define "sovereign-mesh.country" -}}
{{- .Values.trustDomain | splitList "." | first | upper -}}
{{- end -}}

{{/* The pod's DNS name under the headless Service: dict root, ordinal. */}}
{{- define "sovereign-mesh.podHost" -}}
{{ include "sovereign-mesh.nodeName" .root }}-{{ .ordinal }}.{{ include "sovereign-mesh.host" (dict "root" .root "name" (include "sovereign-mesh.headlessName" .root)) }}
{{- end -}}

{{/* The ordinals of the nodes, separated by blanks. */}}
{{- define "sovereign-mesh.ordinals" -}}
{{- $first := int .Values.node.firstOrdinal -}}
{{- range $i := until (int .Values.node.replicas) }}{{ if $i }} {{ end }}{{ add $first $i }}{{ end -}}
{{- end -}}

{{- define "sovereign-mesh.modelClaim" -}}
{{- default (printf "%s-model" (include "sovereign-mesh.fullname" .)) .Values.model.persistence.existingClaim -}}
{{- end -}}

{{- define "sovereign-mesh.modelFolder" -}}
{{- $folder := .Values.model.name -}}
{{- if include "sovereign-mesh.fetches" . -}}{{- $folder = .Values.model.digest | trimPrefix "sha256:" | trunc 16 -}}{{- end -}}
/models/{{ default $folder .Values.model.folder }}
{{- end -}}

{{/* Whether a Job fetches the model. */}}
{{- define "sovereign-mesh.fetches" -}}
{{- if has .Values.model.source (list "hub" "objectStore") -}}yes{{- end -}}
{{- end -}}

{{/* dict root, ordinal */}}
{{- define "sovereign-mesh.engineService" -}}{{ include "sovereign-mesh.nodeName" .root }}-{{ .ordinal }}-engine{{- end -}}

{{/* Replicas that may come to share one worker pod, each with a port of its own. */}}
{{- define "sovereign-mesh.enginePorts" -}}{{ min 16 (int .Values.node.engine.replicas) }}{{- end -}}

{{- define "sovereign-mesh.engineSecret" -}}
{{- if ne .root.Values.ray.kuberay.tls.source "secret" -}}{{ include "sovereign-mesh.fullname" .root }}-engine-{{ .end }}
{{- else if eq .end "replica" -}}{{ .root.Values.ray.kuberay.tls.replicaSecretName }}
{{- else -}}{{ .root.Values.ray.kuberay.tls.gatewaySecretName }}{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.kuberay" -}}
{{- if and .Values.node.enabled (eq .Values.ray.mode "kuberay") -}}yes{{- end -}}
{{- end -}}

{{- define "sovereign-mesh.policyConfigMap" -}}
{{- if .Values.policy.existingConfigMap -}}{{ .Values.policy.existingConfigMap }}
{{- else if .Values.policy.cedar -}}{{ include "sovereign-mesh.fullname" . }}-policy{{- end -}}
{{- end -}}
