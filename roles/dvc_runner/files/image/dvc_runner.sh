#!/bin/sh
exec /opt/dvc/bin/python -I /usr/local/lib/dvc_runner "$@"
