#!/bin/sh
# What a part of Airflow needs of the folders it was given: one that cannot be used is told in one sentence.
set -eu
refuse() {
  echo "$1" >&2
  exit 1
}
readable() {
  [ ! -e "$1" ] || { [ -r "$1" ] && [ -x "$1" ]; } || refuse "The folder of $2 ($3, on the host) cannot be read by $(id -u):$(id -g), it is $(stat -c '%u:%g, mode %a' "$1"): set airflow_user to its owner, or let others read it (chmod)."
}
readable /dags DAGs airflow_dags_folder
readable /plugins plugins airflow_plugins_folder
mkdir -p "$AIRFLOW_HOME"
# what these volumes have was written by whoever airflow_user was
owned() {
  strange=$1
  [ ! -w "$1" ] || strange=$(find "$1" -mindepth 1 ! -user "$(id -u)" -print -quit 2>/dev/null || true)
  [ -z "$strange" ] || refuse "$strange ($2) is not for $(id -u):$(id -g), it is $(stat -c %u:%g "$strange")'s: set airflow_user back to its owner, or name another volume."
}
case "$1 ${2:-}" in
  # the job alone has that volume
  "python "*) owned /keys airflow_keys ;;
  # an older backup of the database is brought to today's schema by who serves it
  "airflow api-server") python /config/database.py ;;
  "airflow scheduler")
    owned /logs airflow_logs
    owned "$AIRFLOW_HOME" "volume airflow_tmp"
    # a task that is started before the API answers fails
    api="http://airflow:8080${AIRFLOW_BASE_PATH:-}/api/v2/version"
    until curl -fsS --max-time 8 "$api" >/dev/null 2>&1; do
      [ -n "${waiting:-}" ] || echo "waiting for the API at $api" >&2
      waiting=yes
      sleep 1
    done
    ;;
esac
exec "$@"
