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

{{- define "calico-accountant.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "calico-accountant.selectorLabels" -}}
app.kubernetes.io/name: {{ include "calico-accountant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of the pods. Those in selectors cannot be replaced. */}}
{{- define "calico-accountant.podLabels" -}}
{{- $selector := include "calico-accountant.selectorLabels" . | fromYaml }}
{{- merge $selector (tpl (toYaml .Values.podLabels) . | fromYaml) (tpl (toYaml .Values.commonLabels) . | fromYaml) | toYaml }}
{{- end }}

{{/*
The metadata of an object: `name` (the release's full name if empty), `namespace` (the release's if empty, none if -), and further
labels and annotations.
*/}}
{{- define "calico-accountant.metadata" -}}
{{- $labels := include "calico-accountant.selectorLabels" .root | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
name: {{ default (include "calico-accountant.fullname" .root) .name }}
{{- if ne (.namespace | default "") "-" }}
namespace: {{ default (include "calico-accountant.namespace" .root) .namespace }}
{{- end }}
labels:
  {{- merge (dict) (.labels | default dict) $labels (tpl (toYaml .root.Values.commonLabels) .root | fromYaml) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "calico-accountant.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "calico-accountant.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* `image` as a reference. A parent chart's registry overrides its own. Without one, the container runtime would use docker.io. */}}
{{- define "calico-accountant.image" -}}
{{- $name := .image.repository }}
{{- $registry := default .image.registry .root.Values.global.imageRegistry }}
{{- if $registry }}
{{- $name = printf "%s/%s" $registry $name }}
{{- else if not (regexMatch `^(localhost|[^/]*[.:][^/]*)/` $name) }}
{{- fail "image.registry: say where the image is, for none is published: the registry that it was pushed to (docs/chart.md), or localhost where the nodes have it" }}
{{- end }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{- define "calico-accountant.pullSecrets" -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
- {{ ternary . (dict "name" .) (kindIs "map" .) | toYaml }}
{{- end }}
{{- end }}

{{/* Whether Prometheus finds the exporter by the pods' annotations. */}}
{{- define "calico-accountant.byAnnotations" -}}
{{- if and .Values.scrapeAnnotations (not .Values.podMonitor.enabled) (not .Values.serviceMonitor.enabled) }}true{{ end }}
{{- end }}

{{/* Whether the node's name comes from the file that calico-node writes. */}}
{{- define "calico-accountant.nodeNameOfFile" -}}
{{- if or (eq .Values.nodeName "file") (and (eq .Values.nodeName "auto") (eq .Values.datastore.type "etcdv3")) }}true{{ end }}
{{- end }}
