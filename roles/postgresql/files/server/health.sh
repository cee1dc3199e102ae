#!/bin/sh
# A query, and not only whether somebody listens; or why there is no server.
if [ -s /tmp/refused ]; then
  cat /tmp/refused
  exit 1
fi
exec psql --no-psqlrc --quiet --tuples-only --no-align --command 'SELECT 1' postgres
