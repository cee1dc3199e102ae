#!/bin/sh
# The store's address may hold a password, so it arrives as a file and never on a command line.
set -eu
MLFLOW_BACKEND_STORE_URI=$(cat /run/secrets/backend_store_uri)
export MLFLOW_BACKEND_STORE_URI
# Downloads pass through files here: on disk, for /tmp is memory. What a killed server left is nobody's.
if [ "$1 ${2:-}" = "mlflow server" ]; then
  rm -rf "$TMPDIR"
  python3 /config/database.py
else
  # `mlflow gc` and the like have no other way to be told of the store but their command line
  export MLFLOW_TRACKING_URI="$MLFLOW_BACKEND_STORE_URI"
fi
mkdir -p "$TMPDIR"
exec "$@"
