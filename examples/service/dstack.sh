#!/bin/sh
# Applies dstack-task.yaml for an attempt at a job of the service, and prints what the run is called.
#
#   sh dstack.sh JOB ATTEMPT FOLDER
set -eu
name=$(printf '%s-%s' "$1" "$2" | tr '[:upper:]' '[:lower:]')
dstack apply -f "$(dirname "$0")/dstack-task.yaml" -n "$name" -e "FOLDER=$3" -y -d >&2
echo "$name"
