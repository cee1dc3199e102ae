#!/bin/sh
# usage: health.sh HOST COMPONENT
# Whether Airflow's own page of health has a component as healthy; the answer has it in one line.
set -eu
curl -fsS --max-time 8 "http://$1:8080${AIRFLOW_BASE_PATH:-}/api/v2/monitor/health" | grep -q "\"$2\":{\"status\":\"healthy\""
