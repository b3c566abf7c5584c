#!/bin/sh
# Makes a Job of kubernetes-job.yaml for an attempt at a job of the service, and prints what it is called.
#
#   sh kubernetes.sh JOB ATTEMPT FOLDER
set -eu
name=$(printf '%s-%s' "$1" "$2" | tr '[:upper:]' '[:lower:]')
sed -e "s|@NAME@|$name|g" -e "s|@FOLDER@|$3|g" "$(dirname "$0")/kubernetes-job.yaml" | kubectl create -f - -o name
