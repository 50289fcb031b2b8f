{{/* The pod of a Ray head or worker that KubeRay starts: dict root, values, kind. */}}
{{- define "sovereign-mesh.rayPod" -}}
{{- $root := .root -}}
{{- $worker := eq .kind "worker" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if and $worker $root.Values.node.engine.gpu.enabled -}}
{{- $limits := merge (dict $root.Values.node.engine.gpu.resourceName (int .values.gpus)) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
serviceAccountName: {{ include "sovereign-mesh.fullname" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "sovereign-mesh.podSecurity" $root | nindent 2 }}
{{- include "sovereign-mesh.pullSecrets" $root }}
{{- include "sovereign-mesh.scheduling" (merge (dict "priorityClassName" $root.Values.node.priorityClassName) .values) }}
{{- if and $worker $root.Values.node.runtimeClassName }}
runtimeClassName: {{ $root.Values.node.runtimeClassName }}
{{- end }}
{{- if $worker }}
initContainers:
  {{- include "sovereign-mesh.awaitModel" $root | nindent 2 }}
{{- end }}
containers:
  - name: ray-{{ .kind }}
    image: {{ include "sovereign-mesh.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    env:
      {{- include "sovereign-mesh.environment" $root | nindent 6 }}
      - name: TMPDIR
        value: /tmp
      # KubeRay starts Ray through a shell, and need not know where the image has it.
      - name: PATH
        value: /opt/sovereign-mesh/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
      - name: RAY_USAGE_STATS_ENABLED
        value: "0"
      - name: VLLM_NO_USAGE_STATS
        value: "1"
      - name: VLLM_DO_NOT_TRACK
        value: "1"
      - name: HF_HUB_DISABLE_TELEMETRY
        value: "1"
      - name: HF_HUB_OFFLINE
        value: "1"
    ports:
      {{- if $worker }}
      - name: engine
        containerPort: 7450
      {{- else }}
      # By the names that KubeRay makes the head's Service from.
      - name: gcs-server
        containerPort: 6379
      - name: dashboard
        containerPort: 8265
      - name: client
        containerPort: 10001
      - name: serve
        containerPort: 8000
      {{- end }}
      - name: raylet
        containerPort: 6380
    # Instead of KubeRay's own, which run wget in the image.
    startupProbe:
      tcpSocket: {port: raylet}
      periodSeconds: 5
      failureThreshold: 60
    livenessProbe:
      tcpSocket: {port: raylet}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 12
    readinessProbe:
      tcpSocket: {port: {{ ternary "raylet" "gcs-server" $worker }}}
      periodSeconds: 5
      timeoutSeconds: 5
    securityContext: {{- include "sovereign-mesh.containerSecurity" $root | nindent 6 }}
    resources: {{- toYaml $resources | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      - name: shm
        mountPath: /dev/shm
      {{- if $worker }}
      - name: cache
        mountPath: /var/cache/sovereign-mesh
      - name: models
        mountPath: /models
        readOnly: true
      - name: engine-tls
        mountPath: /etc/sovereign-mesh/engine-tls
        readOnly: true
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ $root.Values.node.temporary }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ $root.Values.node.sharedMemory }}
  {{- if $worker }}
  - name: cache
    emptyDir: {}
  {{- include "sovereign-mesh.scriptsVolume" $root | nindent 2 }}
  - name: models
    persistentVolumeClaim:
      claimName: {{ include "sovereign-mesh.modelClaim" $root }}
  - name: engine-tls
    secret:
      secretName: {{ include "sovereign-mesh.engineSecret" (dict "root" $root "end" "replica") }}
      defaultMode: 0440
  {{- end }}
{{- end -}}
