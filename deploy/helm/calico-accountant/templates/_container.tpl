{{/*
The container's securityContext. It runs as root, because a container runtime gives capabilities to no other user, with only those
capabilities that reading packet filters takes. Each key of .Values.securityContext replaces ours.
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

{{/* The program's settings that have a value: logLevel is LOG_LEVEL. */}}
{{- define "calico-accountant.settings" -}}
{{- $behindProxy := ternary (dict "listenAddress" "127.0.0.1") (dict) .Values.kubeRBACProxy.enabled -}}
{{- range $name, $value := merge $behindProxy .Values.settings }}
{{- if $value }}
- name: {{ snakecase $name | upper }}
  value: {{ ternary (join "," $value) (ternary (int64 $value) $value (kindIs "float64" $value)) (kindIs "slice" $value) | quote }}
{{- end }}
{{- end }}
- name: METRICS_SERVER_PORT
  value: {{ int .Values.port | quote }}
{{- end }}

{{/* The files and folders of the host and of the cluster that the container sees. */}}
{{- define "calico-accountant.volumeMounts" -}}
# Felix and kube-proxy hold this lock while they rewrite legacy tables. The exporter shares it while it reads.
- name: xtables-lock
  mountPath: /run/xtables.lock
  readOnly: true
{{- if .Values.podLogs.enabled }}
- name: pod-logs
  mountPath: /var/log/pods
  readOnly: true
{{- end }}
{{- if .Values.ebpf.enabled }}
- name: bpffs
  mountPath: /sys/fs/bpf
  # It may be mounted after the pod has started.
  mountPropagation: HostToContainer
  readOnly: true
- name: calico-run
  mountPath: /var/run/calico
  readOnly: true
{{- end }}
{{- if include "calico-accountant.nodeNameOfFile" . }}
# calico-node writes this file when it starts. Until then, the pod waits for it.
- name: nodename
  mountPath: /var/lib/calico/nodename
  readOnly: true
{{- end }}
{{- if and (eq .Values.datastore.type "etcdv3") .Values.datastore.etcd.secret }}
- name: etcd-certificates
  mountPath: /calico-secrets
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "calico-accountant.volumes" -}}
- name: xtables-lock
  hostPath:
    path: /run/xtables.lock
    type: FileOrCreate
{{- if .Values.podLogs.enabled }}
- name: pod-logs
  hostPath:
    path: /var/log/pods
    type: Directory
{{- end }}
{{- if .Values.ebpf.enabled }}
- name: bpffs
  hostPath:
    path: /sys/fs/bpf
    type: Directory
- name: calico-run
  hostPath:
    path: /var/run/calico
    type: Directory
{{- end }}
{{- if include "calico-accountant.nodeNameOfFile" . }}
- name: nodename
  hostPath:
    path: /var/lib/calico/nodename
    type: File
{{- end }}
{{- if and (eq .Values.datastore.type "etcdv3") .Values.datastore.etcd.secret }}
- name: etcd-certificates
  secret:
    secretName: {{ .Values.datastore.etcd.secret }}
    defaultMode: 256 # 0400
{{- end }}
{{- with .Values.kubeRBACProxy }}
{{- if and .enabled .tlsSecret }}
- name: kube-rbac-proxy-tls
  secret:
    secretName: {{ .tlsSecret }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
