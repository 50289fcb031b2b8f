{{/* Parts of NetworkPolicies. An empty list of peers means "everybody" to Kubernetes, so no rule is made of one. */}}

{{- define "sovereign-mesh.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "sovereign-mesh.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" .root | nindent 4 }}
{{- end -}}

{{/* A component of this release: dict root, component. */}}
{{- define "sovereign-mesh.peer" -}}
- podSelector:
    matchLabels: {{- include "sovereign-mesh.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Pods of this release with a label: dict root, label. */}}
{{- define "sovereign-mesh.labelledPeer" -}}
- podSelector:
    matchLabels: {{- include "sovereign-mesh.selector" .root | nindent 6 }}
      {{ .label }}: "true"
{{- end -}}

{{/* Address ranges and namespaces: dict cidrs, namespaces. */}}
{{- define "sovereign-mesh.outsiders" -}}
{{- range .cidrs }}
- ipBlock:
    cidr: {{ . }}
{{- end }}
{{- range .namespaces }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end -}}

{{/* One egress rule for each destination: list of cidr, except, ports. */}}
{{- define "sovereign-mesh.destinations" -}}
{{- range . }}
- to:
    - ipBlock:
        cidr: {{ .cidr }}
        {{- with .except }}
        except: {{- toYaml . | nindent 10 }}
        {{- end }}
  ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Metrics for Prometheus, if the values say where that is: dict root, port. */}}
{{- define "sovereign-mesh.metricsIngress" -}}
{{- with .root.Values.monitoring }}
{{- if .namespace }}
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .namespace }}
      {{- with .podLabels }}
      podSelector:
        matchLabels: {{- toYaml . | nindent 10 }}
      {{- end }}
  ports:
    - {protocol: TCP, port: {{ $.port }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.tracesEgress" -}}
{{- if .Values.tracing.endpoint }}
{{- include "sovereign-mesh.destinations" .Values.tracing.destinations }}
{{- with .Values.tracing.namespace }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ . }}
  ports:
    - {protocol: TCP, port: {{ $.Values.tracing.endpoint | splitList ":" | last | int }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The board: this release's, or where the values say. */}}
{{- define "sovereign-mesh.boardEgress" -}}
{{- if .Values.etcd.enabled }}
- to: {{- include "sovereign-mesh.peer" (dict "root" . "component" "etcd") | nindent 4 }}
  ports:
    - {protocol: TCP, port: 2379}
{{- else }}
{{- include "sovereign-mesh.destinations" .Values.networkPolicy.board }}
{{- end }}
{{- end -}}
