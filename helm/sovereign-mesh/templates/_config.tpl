{{/* The configuration files of both daemons, made from values and overlaid with node.config and control.config. */}}

{{- define "sovereign-mesh.boardConfig" -}}
{{- $board := dict -}}
{{- if .Values.etcd.enabled -}}
{{- $endpoints := list -}}
{{- $name := include "sovereign-mesh.etcdName" . -}}
{{- $root := . -}}
{{- range $i := until (int .Values.etcd.replicas) -}}
{{- $member := printf "%s-%d.%s" $name $i $name -}}
{{- $endpoints = append $endpoints (printf "%s:2379" (include "sovereign-mesh.host" (dict "root" $root "name" $member))) -}}
{{- end -}}
{{- $_ := set $board "endpoints" $endpoints -}}
{{- else -}}
{{- $_ := set $board "endpoints" .Values.board.endpoints -}}
{{- if .Values.board.serverName -}}{{- $_ := set $board "server_name" .Values.board.serverName -}}{{- end -}}
{{- if .Values.board.user -}}{{- $_ := set $board "user" .Values.board.user -}}{{- end -}}
{{- end -}}
{{- if include "sovereign-mesh.boardSecret" . -}}
{{- $_ := set $board "ca" "/etc/sovereign-mesh/board/ca.crt" -}}
{{- $_ := set $board "certificate" "/etc/sovereign-mesh/board/tls.crt" -}}
{{- $_ := set $board "key" "/etc/sovereign-mesh/board/tls.key" -}}
{{- end -}}
{{- toYaml $board -}}
{{- end -}}

{{- define "sovereign-mesh.telemetryConfig" -}}
{{- $telemetry := dict "listen" "0.0.0.0:9464" -}}
{{- with .Values.tracing -}}
{{- if .endpoint -}}
{{- $traces := dict "endpoint" .endpoint "sample_ratio" .sampleRatio -}}
{{- if .caSecretName -}}{{- $_ := set $traces "ca" "/etc/sovereign-mesh/traces/ca.crt" -}}{{- end -}}
{{- $_ := set $telemetry "traces" $traces -}}
{{- end -}}
{{- end -}}
{{- toYaml $telemetry -}}
{{- end -}}

{{/* dict root, ordinal */}}
{{- define "sovereign-mesh.nodeConfig" -}}
{{- $values := .root.Values -}}
{{- $node := printf "%s-%s" $values.node.name .ordinal -}}
{{- $advertise := printf "%s:7443" (include "sovereign-mesh.podHost" .) -}}
{{- if $values.node.advertise.address -}}
{{- $advertise = $values.node.advertise.address | replace "{node}" $node -}}
{{- end -}}
{{- $engine := dict "kind" $values.node.engine.kind "capacity" $values.node.engine.capacity -}}
{{- if eq $values.node.engine.kind "scripted" -}}
{{- $_ := set $engine "context_tokens" $values.node.engine.contextTokens -}}
{{- if $values.model.name -}}{{- $_ := set $engine "model_name" $values.model.name -}}{{- end -}}
{{- else -}}
{{- $_ := set $engine "model_name" $values.model.name -}}
{{- if $values.model.digest -}}{{- $_ := set $engine "model_digest" $values.model.digest -}}{{- end -}}
{{- if eq $values.ray.mode "kuberay" -}}
{{- $_ := set $engine "ray" (include "sovereign-mesh.rayConfig" . | fromYaml) -}}
{{- else -}}
{{- $engine = merge $engine (include "sovereign-mesh.engineSpec" .root | fromYaml) -}}
{{- if not $values.node.engine.gpu.enabled -}}
{{- $_ := set $engine "kv_cache_mib" $values.node.engine.kvCacheMib -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $config := dict
  "listen" (list "0.0.0.0:7443")
  "advertise" (list $advertise)
  "state_directory" "/var/lib/sovereign-mesh/state"
  "identity" (dict
    "directory" "/var/lib/sovereign-mesh/identity"
    "renew_at" (include "sovereign-mesh.renewalAddress" .root)
    "renew_name" (printf "main.control.%s" $values.trustDomain))
  "board" (include "sovereign-mesh.boardConfig" .root | fromYaml)
  "engine" $engine
  "serving" (dict "queue" $values.node.serving.queue "drain_grace_s" $values.node.serving.drainGraceSeconds)
  "retrieval" (dict "enabled" $values.node.retrieval.enabled)
  "evidence" (dict "witnesses" $values.node.witnesses)
  "log" (dict "level" $values.log.level "format" "json")
  "telemetry" (include "sovereign-mesh.telemetryConfig" .root | fromYaml) -}}
{{- toYaml (mergeOverwrite $config (deepCopy $values.node.config)) -}}
{{- end -}}

{{/* What an engine is, in words that node.yaml and the Serve application share. */}}
{{- define "sovereign-mesh.engineSpec" -}}
{{- $spec := dict "model" (include "sovereign-mesh.modelFolder" .) -}}
{{- with .Values.node.engine -}}
{{- $_ := set $spec "context_tokens" .contextTokens -}}
{{- $_ := set $spec "replicas" .replicas -}}
{{- $_ := set $spec "tensor_parallel" .tensorParallel -}}
{{- $_ := set $spec "pipeline_parallel" .pipelineParallel -}}
{{- $_ := set $spec "embeddings" .embeddings -}}
{{- $_ := set $spec "dtype" .dtype -}}
{{- $_ := set $spec "threads" .threads -}}
{{- if .gpu.enabled -}}
{{- $_ := set $spec "gpus" (mul (int .tensorParallel) (int .pipelineParallel)) -}}
{{- $_ := set $spec "gpu_memory_fraction" .gpu.memoryFraction -}}
{{- end -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}

{{/* How a node reaches the replicas that KubeRay runs for it: dict root, ordinal. */}}
{{- define "sovereign-mesh.rayConfig" -}}
replicas:
{{- $host := include "sovereign-mesh.host" (dict "root" .root "name" (include "sovereign-mesh.engineService" .)) }}
{{- range $i := until (int (include "sovereign-mesh.enginePorts" .root)) }}
  - {{ $host }}:{{ add 7450 $i }}
{{- end }}
ca: /etc/sovereign-mesh/engine-tls/ca.crt
certificate: /etc/sovereign-mesh/engine-tls/tls.crt
key: /etc/sovereign-mesh/engine-tls/tls.key
{{- end -}}

{{- define "sovereign-mesh.controlConfig" -}}
{{- $config := dict
  "name" "main"
  "authority_directory" "/run/authority/ca"
  "state_directory" "/var/lib/sovereign-mesh/state"
  "listen" (list "0.0.0.0:7443")
  "enrolment" (dict "listen" (list "0.0.0.0:7444") "per_minute" .Values.control.enrolmentsPerMinute)
  "board" (include "sovereign-mesh.boardConfig" . | fromYaml)
  "heads" (dict "interval_s" .Values.control.heads.intervalSeconds "max_age_s" .Values.control.heads.maxAgeSeconds)
  "certificates" (dict "ttl_hours" .Values.control.certificateHours)
  "log" (dict "level" .Values.log.level "format" "json")
  "telemetry" (include "sovereign-mesh.telemetryConfig" . | fromYaml) -}}
{{- if include "sovereign-mesh.policyConfigMap" . -}}
{{- $_ := set $config "bootstrap" (dict "policy" "/etc/sovereign-mesh/policy/policy.cedar") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.control.config)) -}}
{{- end -}}
