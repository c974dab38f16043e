{{- define "icebroker.name" -}}
{{- if contains "icebroker" .Release.Name -}}
{{ .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-icebroker" .Release.Name | trunc 43 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "icebroker.selector" -}}
app.kubernetes.io/name: icebroker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "icebroker.labels" -}}
{{ include "icebroker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "icebroker.secret" -}}
{{- required "secrets.existing is empty: make a Secret with the keys turn and token (values.yaml says how)" .Values.secrets.existing -}}
{{- end -}}

{{/* Settings as environment variables: lists and numbers as JSON, which config/load.py reads. */}}
{{- define "icebroker.settings" -}}
{{- $section := .section -}}
{{- range $key, $value := .settings }}
ICEBROKER_{{ $section | upper }}__{{ $key | upper }}: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* What both kinds of pods have: who they are and what they may. */}}
{{- define "icebroker.pod" -}}
serviceAccountName: {{ include "icebroker.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "icebroker.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef:
      name: {{ include "icebroker.name" . }}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 3
  timeoutSeconds: 2
{{- end -}}

{{/* Where the process is, for the listener of its metrics; and its secrets, as files. */}}
{{- define "icebroker.environment" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: ICEBROKER_ADMIN__LISTEN
  # Brackets are for IPv6 and harm no other; `kubectl port-forward` comes to 127.0.0.1.
  value: "[$(POD_IP)]:{{ .Values.metrics.port }}, 127.0.0.1:{{ .Values.metrics.port }}"
- name: ICEBROKER_TURN__SECRET_FILE
  value: /run/secrets/icebroker/turn
{{- if .Values.secrets.tenants }}
- name: ICEBROKER_TURN__TENANTS_FILE
  value: /run/secrets/icebroker/tenants
{{- end }}
{{- if .Values.admin.enabled }}
- name: ICEBROKER_ADMIN__TOKEN_FILE
  value: /run/secrets/icebroker/admin
{{- end }}
{{- if .Values.redis.enabled }}
# Relays have it too: by it they hear whom an operator has revoked.
- name: ICEBROKER_REDIS__URL_FILE
  value: /run/secrets/icebroker/redis
{{- if .Values.redis.authority }}
- name: ICEBROKER_REDIS__CA_CERTIFICATE
  value: /run/secrets/icebroker/redis-authority
{{- end }}
{{- if .Values.redis.certificate }}
- name: ICEBROKER_REDIS__TLS_CERTIFICATE
  value: /run/secrets/icebroker/redis-certificate
- name: ICEBROKER_REDIS__TLS_KEY
  value: /run/secrets/icebroker/redis-key
{{- end }}
{{- end }}
{{- end -}}

{{/* What both kinds of pods take from the Secret. */}}
{{- define "icebroker.secretItems" -}}
- {key: turn, path: turn}
{{- if .Values.secrets.tenants }}
- {key: tenants, path: tenants}
{{- end }}
{{- if .Values.admin.enabled }}
- {key: admin, path: admin}
{{- end }}
{{- if .Values.redis.enabled }}
- {key: redis, path: redis}
{{- if .Values.redis.authority }}
- {key: redis-authority, path: redis-authority}
{{- end }}
{{- if .Values.redis.certificate }}
- {key: redis-certificate, path: redis-certificate}
- {key: redis-key, path: redis-key}
{{- end }}
{{- end }}
{{- end -}}
