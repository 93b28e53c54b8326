{{- define "calico-accountant.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "calico-accountant.fullname" -}}
{{- $name := include "calico-accountant.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "calico-accountant.selectorLabels" -}}
app.kubernetes.io/name: {{ include "calico-accountant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "calico-accountant.labels" -}}
{{ include "calico-accountant.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "calico-accountant.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "calico-accountant.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "calico-accountant.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/*
The container's rights. Root, because a container runtime gives capabilities to no other user; of root's rights, only those that reading
packet filters takes. Each key of securityContext replaces ours.
*/}}
{{- define "calico-accountant.securityContext" -}}
{{- $add := list "NET_ADMIN" "NET_RAW" }}
{{- if .Values.ebpf.enabled }}
{{- $add = concat $add (list .Values.ebpf.capability "DAC_READ_SEARCH") }}
{{- end }}
{{- $ours := dict
  "runAsUser" 0
  "privileged" false
  "allowPrivilegeEscalation" false
  "readOnlyRootFilesystem" true
  "capabilities" (dict "drop" (list "ALL") "add" $add)
  "seccompProfile" (dict "type" "RuntimeDefault")
}}
{{- if .Values.seLinuxOptions }}
{{- $_ := set $ours "seLinuxOptions" .Values.seLinuxOptions }}
{{- else if .Values.securityContextConstraints.create }}
{{- $_ := set $ours "seLinuxOptions" (dict "type" "spc_t") }}
{{- end }}
{{- range $key, $value := .Values.securityContext }}
{{- $_ := set $ours $key $value }}
{{- end }}
{{- toYaml $ours }}
{{- end }}

{{/* Whether the node's name is what calico-node wrote into its file. */}}
{{- define "calico-accountant.nodeNameOfFile" -}}
{{- if or (eq .Values.nodeName "file") (and (eq .Values.nodeName "auto") (eq .Values.datastore.type "etcdv3")) }}true{{ end }}
{{- end }}

{{/* The datastore's variables. */}}
{{- define "calico-accountant.datastore" -}}
{{- $etcd := .Values.datastore.etcd -}}
- name: DATASTORE_TYPE
  value: {{ .Values.datastore.type }}
{{- if not (include "calico-accountant.nodeNameOfFile" .) }}
- name: NODENAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- if and (eq .Values.datastore.type "kubernetes") .Values.datastore.kubernetes.calicoApiGroup }}
- name: CALICO_API_GROUP
  value: {{ .Values.datastore.kubernetes.calicoApiGroup }}
{{- end }}
{{- if eq .Values.datastore.type "etcdv3" }}
{{- if $etcd.endpoints }}
- name: ETCD_ENDPOINTS
  value: {{ $etcd.endpoints | quote }}
{{- if $etcd.secret }}
- name: ETCD_CA_CERT_FILE
  value: /calico-secrets/etcd-ca
- name: ETCD_CERT_FILE
  value: /calico-secrets/etcd-cert
- name: ETCD_KEY_FILE
  value: /calico-secrets/etcd-key
{{- end }}
{{- else }}
{{- range $variable, $key := dict "ETCD_ENDPOINTS" "etcd_endpoints" "ETCD_CA_CERT_FILE" "etcd_ca" "ETCD_CERT_FILE" "etcd_cert" "ETCD_KEY_FILE" "etcd_key" }}
- name: {{ $variable }}
  valueFrom:
    configMapKeyRef:
      name: {{ $etcd.configMap }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The program's settings that are set. */}}
{{- define "calico-accountant.settings" -}}
{{- $s := .Values.settings -}}
{{- range $variable, $value := dict "LISTEN_ADDRESS" $s.listenAddress "GRAFANA_URL" $s.grafanaUrl "METRIC_NAMES" $s.metricNames "BACKEND" $s.backend "SOURCE" $s.source "XTABLES_LOCK_WAIT" $s.xtablesLockWait "SAMPLE_INTERVAL" $s.sampleInterval "LOG_LEVEL" $s.logLevel "LOG_FORMAT" $s.logFormat }}
{{- if $value }}
- name: {{ $variable }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- with $s.allowedHosts }}
- name: ALLOWED_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
{{- if $s.minimumCounter }}
- name: MINIMUM_COUNTER
  value: {{ int64 $s.minimumCounter | quote }}
{{- end }}
- name: METRICS_SERVER_PORT
  value: {{ int .Values.port | quote }}
{{- end }}

{{/* Where the kubelet asks: at the pod's address, which is the node's, unless the program listens at one address alone. */}}
{{- define "calico-accountant.probe" -}}
{{- $address := .root.Values.settings.listenAddress -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if and $address (not (has $address (list "::" "0.0.0.0"))) }}
  host: {{ $address | quote }}
  {{- end }}
periodSeconds: 10
timeoutSeconds: 5
{{- end }}
