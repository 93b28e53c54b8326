{{/* files/rules.yaml with values in place of its placeholders, which its first lines list. */}}
{{- define "calico-accountant.rules" -}}
{{- $ours := .Values.prometheusRule -}}
{{- $source := .Files.Get "files/rules.yaml" | fromYaml -}}
{{- $names := list -}}
groups:
{{- range $group := $source.groups }}
{{- range $direction := ternary (list "ingress" "egress") (list "") (contains "$direction" $group.name) }}
{{- $rules := list }}
{{- range $group.rules }}
{{- if .record }}
{{- $labels := merge (ternary (dict "direction" $direction) dict (ne $direction "")) (.labels | default dict) }}
{{- $rules = append $rules (dict "record" .record "expr" (replace "$direction" $direction .expr) "labels" $labels) }}
{{- else }}
{{- $names = append $names .alert }}
{{- $set := get $ours.alerts .alert | required (printf "prometheusRule.alerts.%s: missing; to leave the alert out, set enabled: false" .alert) }}
{{- if $set.enabled }}
{{- $rules = append $rules (include "calico-accountant.alert" (dict "rule" . "set" $set "root" $) | fromYaml) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $rules }}
  - name: {{ replace "$direction" $direction $group.name }}
    {{- with $ours.interval }}
    interval: {{ . }}
    {{- end }}
    rules:
      {{- range $rules }}
      {{- include "calico-accountant.rule" . | trim | nindent 6 }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := $ours.alerts }}
{{- if not (has $name $names) }}
{{- fail (printf "prometheusRule.alerts.%s: there is no such alert; there are %s" $name (join ", " $names)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* One alert of files/rules.yaml with its values. */}}
{{- define "calico-accountant.alert" -}}
{{- $ours := .root.Values.prometheusRule }}
{{- $matchers := list }}
{{- /* On other series, namespace and pod are the exporter's. */}}
{{- $exclude := ternary $ours.exclude (omit $ours.exclude "namespace" "pod") (contains "workload:" .rule.expr) }}
{{- range list $exclude .set.exclude }}
{{- range $label, $pattern := . }}
{{- $matchers = append $matchers (printf "%s!~%q" $label $pattern) }}
{{- end }}
{{- end }}
{{- $expr := .rule.expr }}
{{- if $matchers }}
{{- $expr = regexReplaceAllLiteral `\$exclude\b` $expr (join "," $matchers) }}
{{- else }}
{{- $expr = regexReplaceAllLiteral `\{\}` (regexReplaceAllLiteral `,?\$exclude\b` $expr "") "" }}
{{- end }}
{{- $expr = regexReplaceAllLiteral `\$job\b` $expr (printf ".*%s.*" (include "calico-accountant.fullname" .root)) }}
{{- $annotations := merge (dict) .rule.annotations $ours.alertAnnotations }}
{{- /* Each exporter serves the runbook. The link leads to the alert's instance, or to any exporter. */}}
{{- $here := `{{ with $labels.instance }}http://{{ . }}/runbook{{ else }}{{ with query "cluster:calico_accountant_build_info:any" }}http://{{ . | first | label "instance" }}/runbook{{ else }}docs/alerts.md{{ end }}{{ end }}` }}
{{- $_ := set $annotations "runbook_url" (replace "docs/alerts.md#" (printf "%s#" ($ours.runbookUrl | default $here)) $annotations.runbook_url) }}
{{- range $word, $value := omit .set "enabled" "severity" "exclude" "keepFiringFor" }}
{{- $pattern := printf `\$%s\b` $word }}
{{- if not (or (eq $word "for") (regexMatch $pattern $expr)) }}
{{- fail (printf "prometheusRule.alerts.%s.%s: this alert has none" $.rule.alert $word) }}
{{- end }}
{{- $expr = regexReplaceAllLiteral $pattern $expr (toString $value) }}
{{- range $key, $text := $annotations }}
{{- $_ := set $annotations $key (regexReplaceAllLiteral $pattern $text (toString $value)) }}
{{- end }}
{{- end }}
{{- $alert := dict "alert" .rule.alert "expr" $expr "annotations" $annotations }}
{{- $_ := set $alert "labels" (merge (dict "severity" .set.severity) (.rule.labels | default dict) $ours.alertLabels) }}
{{- if ne (.set.for | default "0s") "0s" }}
{{- $_ := set $alert "for" .set.for }}
{{- end }}
{{- with .set.keepFiringFor }}
{{- $_ := set $alert "keep_firing_for" . }}
{{- end }}
{{- toYaml $alert }}
{{- end }}

{{/* One rule as text, with its fields in the usual order. */}}
{{- define "calico-accountant.rule" -}}
- {{ if .record }}record: {{ .record }}{{ else }}alert: {{ .alert }}{{ end }}
  expr: |-
    {{- .expr | nindent 4 }}
  {{- with .for }}
  for: {{ . }}
  {{- end }}
  {{- with .keep_firing_for }}
  keep_firing_for: {{ . }}
  {{- end }}
  {{- with .labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .annotations }}
  annotations:
    {{- range $name, $text := . }}
    {{ $name }}: |-
      {{- $text | nindent 6 }}
    {{- end }}
  {{- end }}
{{- end }}
