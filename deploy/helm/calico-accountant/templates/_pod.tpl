{{/*
The specification of a pod: the exporter, or with `args` a run of the program with these arguments, which ends by itself.
*/}}
{{- define "calico-accountant.pod" -}}
{{- $values := .root.Values }}
{{- $proxy := $values.kubeRBACProxy.enabled }}
serviceAccountName: {{ include "calico-accountant.serviceAccount" .root }}
automountServiceAccountToken: {{ or (eq $values.datastore.type "kubernetes") $proxy }}
# Otherwise, a Service named metrics-server sets METRICS_SERVER_PORT to tcp://….
enableServiceLinks: false
{{- with include "calico-accountant.pullSecrets" .root | trim }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
# The rules are in the host's network namespace.
hostNetwork: true
{{- $keys := list "dnsPolicy" "dnsConfig" "priorityClassName" "nodeSelector" "tolerations" "affinity" "terminationGracePeriodSeconds" }}
{{- range $key := ternary $keys (append $keys "initContainers") (hasKey . "args") }}
{{- with get $values $key }}
{{ toYaml (dict $key .) }}
{{- end }}
{{- end }}
{{- if .args }}
restartPolicy: Never
{{- end }}
containers:
  - name: calico-accountant
    image: {{ include "calico-accountant.image" (dict "image" $values.image "root" .root) | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    {{- with concat (.args | default list) $values.extraArgs }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    env:
      {{- include "calico-accountant.datastore" .root | trim | nindent 6 }}
      {{- include "calico-accountant.settings" .root | trim | nindent 6 }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    securityContext:
      {{- include "calico-accountant.securityContext" .root | nindent 6 }}
    # The last lines of its log are in the pod's status.
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    volumeMounts:
      {{- include "calico-accountant.volumeMounts" .root | trim | nindent 6 }}
    {{- if not .args }}
    {{- if not $proxy }}
    ports:
      - name: metrics
        containerPort: {{ int $values.port }}
    {{- end }}
    {{- range $kind, $path := dict "livenessProbe" "/healthz" "readinessProbe" "/readyz" "startupProbe" "/healthz" }}
    {{- with get $values $kind }}
    {{ $kind }}:
      {{- mergeOverwrite (include "calico-accountant.probe" (dict "root" $.root "path" $path) | fromYaml) . | toYaml | nindent 6 }}
    {{- end }}
    {{- end }}
  {{- if $proxy }}
  - {{- include "calico-accountant.proxy" .root | trim | nindent 4 }}
  {{- end }}
  {{- with $values.sidecars }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
    {{- end }}
volumes:
  {{- include "calico-accountant.volumes" .root | trim | nindent 2 }}
{{- end }}

{{/* The address of a probe: the pod's, which is the node's, unless the program listens at only one address. */}}
{{- define "calico-accountant.probe" -}}
{{- $proxy := .root.Values.kubeRBACProxy.enabled }}
{{- $address := ternary "127.0.0.1" .root.Values.settings.listenAddress $proxy -}}
httpGet:
  path: {{ .path }}
  port: {{ ternary (int .root.Values.port) "metrics" $proxy }}
  {{- if and $address (not (has $address (list "::" "0.0.0.0"))) }}
  host: {{ $address | quote }}
  {{- end }}
{{- end }}

{{/*
The container that checks who may read. It serves only /metrics: the API's paths begin like Kubernetes' own, which system:discovery lets
every authenticated client get. So the kubelet, which does not authenticate itself, cannot probe through the proxy.
*/}}
{{- define "calico-accountant.proxy" -}}
{{- $ours := .Values.kubeRBACProxy }}
name: kube-rbac-proxy
image: {{ include "calico-accountant.image" (dict "image" $ours.image "root" .) | quote }}
imagePullPolicy: {{ $ours.image.pullPolicy }}
args:
  - --secure-listen-address=[$(HOST_IP)]:{{ int .Values.port }}
  - --upstream=http://127.0.0.1:{{ int .Values.port }}/
  - --allow-paths=/metrics
  {{- if $ours.tlsSecret }}
  - --tls-cert-file=/tls/tls.crt
  - --tls-private-key-file=/tls/tls.key
  {{- with $ours.clientCaKey }}
  - --client-ca-file=/tls/{{ . }}
  {{- end }}
  {{- end }}
  {{- with $ours.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: HOST_IP
    valueFrom:
      fieldRef:
        fieldPath: status.hostIP
ports:
  - name: metrics
    containerPort: {{ int .Values.port }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
resources:
  {{- toYaml $ours.resources | nindent 2 }}
{{- if $ours.tlsSecret }}
volumeMounts:
  - name: kube-rbac-proxy-tls
    mountPath: /tls
    readOnly: true
{{- end }}
{{- end }}
