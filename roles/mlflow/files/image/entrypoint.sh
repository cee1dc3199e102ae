#!/bin/sh
# The store's address may hold a password, so it arrives as a file and never on a command line.
set -eu
MLFLOW_BACKEND_STORE_URI=$(cat /run/secrets/backend_store_uri)
export MLFLOW_BACKEND_STORE_URI
exec "$@"
