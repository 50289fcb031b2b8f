{{/*
Jobs of the chart.

Those that make Secrets are no hooks: the pods that need a Secret wait for it, so "helm install --wait" ends, and what
is made outlives the release. Their names end in a digest of what they do and of the release's revision, since a Job
cannot be changed; doing it again changes nothing. Those that administer a running control plane are hooks after
install and upgrade.
*/}}

{{/*
dict root, what (name and component), script, env (YAML list), mounts, volumes (YAML lists), api (speaks to the
Kubernetes API), admin (acts as an administrator), hook (annotations; empty: no hook), labels (YAML).
*/}}
{{- define "sovereign-mesh.job" -}}
{{- $pod := include "sovereign-mesh.jobPod" . -}}
{{- $name := printf "%s-%s" (include "sovereign-mesh.fullname" .root) .what -}}
{{- if not .hook -}}
{{- $name = printf "%s-%s" $name (printf "%s/%d" $pod (int .root.Release.Revision) | sha256sum | trunc 8) -}}
{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
  {{- with .hook }}
  annotations: {{- . | nindent 4 }}
  {{- end }}
spec:
  backoffLimit: 6
  ttlSecondsAfterFinished: {{ int .root.Values.jobs.ttlSecondsAfterFinished }}
  template: {{- $pod | nindent 4 }}
{{- end -}}

{{- define "sovereign-mesh.jobPod" -}}
{{- $root := .root -}}
metadata:
  labels: {{- include "sovereign-mesh.podLabels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
    {{- if .api }}
    sovereign-mesh.io/calls-kubernetes: "true"
    {{- end }}
    {{- if .admin }}
    sovereign-mesh.io/calls-control: "true"
    {{- end }}
    {{- with .labels }}{{ . | nindent 4 }}{{- end }}
spec:
  restartPolicy: Never
  {{- if .api }}
  serviceAccountName: {{ include "sovereign-mesh.fullname" $root }}-{{ .what }}
  automountServiceAccountToken: true
  {{- else }}
  serviceAccountName: {{ include "sovereign-mesh.fullname" $root }}
  automountServiceAccountToken: false
  {{- end }}
  enableServiceLinks: false
  securityContext: {{- include "sovereign-mesh.podSecurity" $root | nindent 4 }}
  {{- include "sovereign-mesh.pullSecrets" $root | nindent 2 }}
  {{- with .affinity }}
  affinity: {{- . | nindent 4 }}
  {{- end }}
  {{- if .admin }}
  initContainers: {{- include "sovereign-mesh.authorityInit" $root | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .what }}
      image: {{ default (include "sovereign-mesh.controlImage" $root) .image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [sh, /scripts/{{ .script }}]
      env:
        {{- include "sovereign-mesh.environment" $root | nindent 8 }}
        - name: WORK_DIR
          value: /run/work
        {{- if .api }}
        # For the Secrets that it makes, which helm does not know.
        - name: INSTANCE
          value: {{ $root.Release.Name }}
        {{- end }}
        {{- if .admin }}
        - name: ADMIN_NAME
          value: {{ .what }}
        {{- include "sovereign-mesh.adminEnvironment" $root | nindent 8 }}
        {{- end }}
        {{- with .env }}{{ . | nindent 8 }}{{- end }}
      {{- with .envFrom }}
      envFrom: {{- . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "sovereign-mesh.containerSecurity" $root | nindent 8 }}
      resources: {{- toYaml (default $root.Values.jobs.resources .resources) | nindent 8 }}
      volumeMounts:
        {{- include "sovereign-mesh.scriptsMount" $root | nindent 8 }}
        {{- if .admin }}
        - name: authority
          mountPath: /run/authority
        {{- end }}
        - name: work
          mountPath: /run/work
        - name: tmp
          mountPath: /tmp
        {{- with .mounts }}{{ . | nindent 8 }}{{- end }}
  volumes:
    {{- include "sovereign-mesh.scriptsVolume" $root | nindent 4 }}
    {{- if .admin }}
    {{- include "sovereign-mesh.authorityVolumes" $root | nindent 4 }}
    {{- end }}
    - name: work
      emptyDir:
        medium: Memory
        sizeLimit: 8Mi
    - name: tmp
      emptyDir:
        sizeLimit: 256Mi
    {{- with .volumes }}{{ . | nindent 4 }}{{- end }}
{{- end -}}

{{/*
The account of a Job that makes Secrets: dict root, what, secrets (names it may ask for). Kubernetes cannot limit
"create" to names.
*/}}
{{- define "sovereign-mesh.secretMaker" -}}
{{- $name := printf "%s-%s" (include "sovereign-mesh.fullname" .root) .what -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
rules:
  - apiGroups: [""]
    resources: [secrets]
    verbs: [create]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: {{- toYaml .secrets | nindent 6 }}
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sovereign-mesh.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .what }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{/* Annotations of a hook that runs after install and upgrade. */}}
{{- define "sovereign-mesh.afterInstall" -}}
helm.sh/hook: post-install,post-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
