{{/* The first part of all names: `moeops` for a release of that name. */}}
{{- define "moeops.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 33 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{- define "moeops.operator" -}}
{{ include "moeops.fullname" . }}-operator
{{- end -}}

{{/* What pods are selected by. It cannot be changed: a Deployment's selector is immutable. */}}
{{- define "moeops.selector" -}}
app.kubernetes.io/name: moeops
app.kubernetes.io/component: operator
{{- end -}}

{{- define "moeops.labels" -}}
app.kubernetes.io/name: moeops
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "moeops.operatorLabels" -}}
{{ include "moeops.labels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "moeops.account" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "moeops.operator" . -}}
{{- else -}}
{{- fail "serviceAccount.name is empty and serviceAccount.create is false; name the ServiceAccount that the operator is to use" -}}
{{- end -}}
{{- end -}}

{{/* The image of a program; the argument is a list of the root context and the program. */}}
{{- define "moeops.image" -}}
{{- $root := index . 0 -}}
{{- $program := index . 1 -}}
{{- $images := $root.Values.images -}}
{{- index $images $program | default (printf "%s%s:%s" $images.prefix $program ($images.tag | default $root.Chart.AppVersion)) -}}
{{- end -}}

{{/* Not empty where MutatingAdmissionPolicies are made. */}}
{{- define "moeops.mutating" -}}
{{- $known := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- $wanted := .Values.admissionPolicies.mutating -}}
{{- if and .Values.admissionPolicies.create (or (eq $wanted "Always") (and (eq $wanted "Auto") $known)) -}}
yes
{{- end -}}
{{- end -}}

{{/* Where an admission policy holds, for its binding; nothing for the whole cluster. */}}
{{- define "moeops.bound" -}}
{{- if eq .Values.scope.kind "Namespaces" -}}
matchResources:
  namespaceSelector:
    matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values:
      {{- toYaml .Values.scope.namespaces | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* Not empty where cert-manager is to make the authority of certificates. */}}
{{- define "moeops.certManager" -}}
{{- $tls := .Values.tls -}}
{{- $known := .Capabilities.APIVersions.Has "cert-manager.io/v1/Certificate" -}}
{{- $wanted := or (eq $tls.certManager "Always") (and (eq $tls.certManager "Auto") $known) -}}
{{- if and $wanted (ne $tls.mode "Disabled") (not $tls.authoritySecret) -}}
yes
{{- end -}}
{{- end -}}

{{/* The Secret that the authority comes from; empty where the operator makes it. */}}
{{- define "moeops.authoritySecret" -}}
{{- if include "moeops.certManager" . -}}
{{ include "moeops.operator" . }}-ca-given
{{- else if ne .Values.tls.mode "Disabled" -}}
{{ .Values.tls.authoritySecret }}
{{- end -}}
{{- end -}}
