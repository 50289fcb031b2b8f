{{/* What every pod of the chart has in common. */}}

{{- define "sovereign-mesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Always would open private keys on the volumes to the group at every start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sovereign-mesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "sovereign-mesh.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* nodeSelector, tolerations, affinity, priorityClassName: dict of one component's values. */}}
{{- define "sovereign-mesh.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Over machines as far as possible, unless the values say otherwise: dict root, values, component. */}}
{{- define "sovereign-mesh.spread" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{ toYaml .values.topologySpreadConstraints | indent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "sovereign-mesh.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end -}}

{{/* Waits for the model in the pods that serve it; they need volumes scripts, models and tmp. */}}
{{- define "sovereign-mesh.awaitModel" -}}
- name: await-model
  image: {{ include "sovereign-mesh.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sh, /scripts/await-model.sh]
  env:
    {{- include "sovereign-mesh.environment" . | nindent 4 }}
    - name: MODEL_DIR
      value: {{ include "sovereign-mesh.modelFolder" . }}
    - name: FETCHED
      value: {{ default "no" (include "sovereign-mesh.fetches" .) | quote }}
  securityContext: {{- include "sovereign-mesh.containerSecurity" . | nindent 4 }}
  resources: {{- toYaml .Values.jobs.resources | nindent 4 }}
  volumeMounts:
    {{- include "sovereign-mesh.scriptsMount" . | nindent 4 }}
    - name: models
      mountPath: /models
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* Environment of everything that runs our image. */}}
{{- define "sovereign-mesh.environment" -}}
- name: HOME
  value: /tmp
# For libraries that ask who they are where there may be no /etc/passwd.
- name: USER
  value: mesh
- name: PYTHONUNBUFFERED
  value: "1"
{{- end -}}

{{- define "sovereign-mesh.boardPassword" -}}
{{- with .Values.board.passwordSecret }}
{{- if .name }}
- name: SOVEREIGN_MESH_BOARD_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The board's TLS files, where it has some; kubelet replaces them when they are renewed. */}}
{{- define "sovereign-mesh.boardMount" -}}
{{- if include "sovereign-mesh.boardSecret" . }}
- name: board-tls
  mountPath: /etc/sovereign-mesh/board
  readOnly: true
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.boardVolume" -}}
{{- with include "sovereign-mesh.boardSecret" . }}
- name: board-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.tracesMount" -}}
{{- if .Values.tracing.caSecretName }}
- name: traces-tls
  mountPath: /etc/sovereign-mesh/traces
  readOnly: true
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.tracesVolume" -}}
{{- with .Values.tracing.caSecretName }}
- name: traces-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "sovereign-mesh.scriptsMount" -}}
- name: scripts
  mountPath: /scripts
  readOnly: true
{{- end -}}

{{- define "sovereign-mesh.scriptsVolume" -}}
- name: scripts
  configMap:
    name: {{ include "sovereign-mesh.fullname" . }}-scripts
    defaultMode: 0555
{{- end -}}

{{/* The authority's Secret as it is, for a container that copies it (authority-files.sh). */}}
{{- define "sovereign-mesh.authorityVolumes" -}}
- name: authority-secret
  secret:
    secretName: {{ include "sovereign-mesh.authoritySecret" . }}
    defaultMode: 0440
- name: authority
  emptyDir:
    medium: Memory
    sizeLimit: 8Mi
{{- end -}}

{{/* Secret mounts are symlinks to files that the group may read; private keys must be their owner's alone. */}}
{{- define "sovereign-mesh.authorityInit" -}}
- name: authority
  image: {{ include "sovereign-mesh.controlImage" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sh, /scripts/authority-files.sh]
  env:
    {{- include "sovereign-mesh.environment" . | nindent 4 }}
    - name: TRUST_DOMAIN
      value: {{ .Values.trustDomain }}
    - name: SECRET_DIR
      value: /run/authority-secret
    - name: AUTHORITY_DIR
      value: /run/authority/ca
  securityContext: {{- include "sovereign-mesh.containerSecurity" . | nindent 4 }}
  resources: {{- toYaml .Values.jobs.resources | nindent 4 }}
  volumeMounts:
    {{- include "sovereign-mesh.scriptsMount" . | nindent 4 }}
    - name: authority-secret
      mountPath: /run/authority-secret
      readOnly: true
    - name: authority
      mountPath: /run/authority
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* Variables of the scripts that administer: admin.sh. */}}
{{- define "sovereign-mesh.adminEnvironment" -}}
- name: AUTHORITY_DIR
  value: /run/authority/ca
- name: ADMIN_DIR
  value: /run/authority/admin
- name: CONTROL
  value: {{ include "sovereign-mesh.renewalAddress" . }}
- name: ENROLMENT
  value: {{ include "sovereign-mesh.enrolmentAddress" . }}
- name: WAIT_SECONDS
  value: {{ .Values.jobs.waitSeconds | int | quote }}
{{- end -}}

{{/* A node's requests and limits, with the GPUs of an engine that runs in its pod. */}}
{{- define "sovereign-mesh.nodeResources" -}}
{{- $resources := deepCopy .Values.node.resources -}}
{{- if and .Values.node.engine.gpu.enabled (eq .Values.ray.mode "inPod") -}}
{{- with .Values.node.engine -}}
{{- $count := mul (int .replicas) (int .tensorParallel) (int .pipelineParallel) -}}
{{- $limits := merge (dict .gpu.resourceName $count) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
