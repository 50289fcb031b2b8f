{{/* Certificates of the release's own CAs, by a Job or by cert-manager: etcd's, and those of the way to Ray's workers. */}}

{{/*
What there is to make: dict root, prefix (of Secrets), algorithm (rsa, ecdsa), days, servers and clients (lists of dict
name, dnsNames).
*/}}
{{- define "sovereign-mesh.certificatesByJob" -}}
{{- $secrets := list (printf "%s-ca" .prefix) -}}
{{- $servers := list -}}
{{- range .servers -}}
{{- $secrets = append $secrets (printf "%s-%s" $.prefix .name) -}}
{{- $servers = append $servers (printf "%s=%s" .name (join "," .dnsNames)) -}}
{{- end -}}
{{- $clients := list -}}
{{- range .clients -}}
{{- $secrets = append $secrets (printf "%s-%s" $.prefix .name) -}}
{{- $clients = append $clients (ternary (printf "%s=%s" .name (join "," .dnsNames)) .name (not (empty .dnsNames))) -}}
{{- end -}}
{{ include "sovereign-mesh.secretMaker" (dict "root" .root "what" .what "secrets" $secrets) }}
---
{{- $env := list
  (dict "name" "PREFIX" "value" .prefix)
  (dict "name" "ALGORITHM" "value" .algorithm)
  (dict "name" "DAYS" "value" (.days | int | toString))
  (dict "name" "SERVERS" "value" (join " " $servers))
  (dict "name" "CLIENTS" "value" (join " " $clients))
  (dict "name" "CA_DIR" "value" "/run/ca") }}
{{- $volumes := list (dict "name" "ca" "secret" (dict "secretName" (printf "%s-ca" .prefix) "optional" true "defaultMode" 288)) }}
{{- $mounts := list (dict "name" "ca" "mountPath" "/run/ca" "readOnly" true) }}
{{ include "sovereign-mesh.job" (dict "root" .root "what" .what "script" "certificates.sh" "api" true
  "env" (toYaml $env) "volumes" (toYaml $volumes) "mounts" (toYaml $mounts)) }}
{{- end -}}

{{/* The same by cert-manager, which renews: dict as above. */}}
{{- define "sovereign-mesh.certificatesByCertManager" -}}
{{- $root := .root -}}
{{- $key := ternary (dict "algorithm" "RSA" "size" 2048 "rotationPolicy" "Always") (dict "algorithm" "ECDSA" "size" 256 "rotationPolicy" "Always") (eq .algorithm "rsa") -}}
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ .prefix }}-self-signed
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
spec:
  selfSigned: {}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ .prefix }}-ca
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
spec:
  secretName: {{ .prefix }}-ca
  secretTemplate:
    labels:
      app.kubernetes.io/part-of: sovereign-mesh
      app.kubernetes.io/instance: {{ $root.Release.Name }}
  isCA: true
  commonName: {{ printf "%s CA" .prefix | trunc 64 }}
  duration: 87600h
  privateKey: {{- toYaml (merge (dict "rotationPolicy" "Never") $key) | nindent 4 }}
  issuerRef:
    name: {{ .prefix }}-self-signed
    kind: Issuer
    group: cert-manager.io
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ .prefix }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
spec:
  ca:
    secretName: {{ .prefix }}-ca
{{- range $serves := list true false }}
{{- range ternary $.servers $.clients $serves }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $.prefix }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $.what }}
spec:
  secretName: {{ $.prefix }}-{{ .name }}
  secretTemplate:
    labels:
      app.kubernetes.io/part-of: sovereign-mesh
      app.kubernetes.io/instance: {{ $root.Release.Name }}
  commonName: {{ .name }}
  {{- with .dnsNames }}
  dnsNames: {{- toYaml . | nindent 4 }}
  {{- end }}
  duration: 2160h
  renewBefore: 720h
  privateKey: {{- toYaml $key | nindent 4 }}
  usages: [digital signature, {{ if eq $.algorithm "rsa" }}key encipherment, {{ end }}client auth{{ if $serves }}, server auth{{ end }}]
  issuerRef:
    name: {{ $.prefix }}
    kind: Issuer
    group: cert-manager.io
{{- end }}
{{- end }}
{{- end -}}
