#!/bin/sh
# Make the cluster where there is none, refuse one of another major version, and be the server.
set -eu
cluster=/data/cluster
made=/data/new

if [ ! -e "$cluster" ]; then
  rm -rf "$made"
  # a locale of PostgreSQL's own: an index outlives the C library that it was made with
  initdb --pgdata="$made" --username=postgres --auth=reject --data-checksums --encoding=UTF8 \
    --locale=C.UTF-8 --locale-provider=builtin --builtin-locale=C.UTF-8
  # an owner reaches its own database and no other
  echo 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC' | postgres --single -D "$made" postgres >/dev/null
  mv "$made" "$cluster"
fi

version=$(cat "$cluster/PG_VERSION")
mine=$(postgres --version | sed 's/.*) \([0-9]*\).*/\1/')
if [ "$version" != "$mine" ]; then
  echo "The data are of PostgreSQL $version and this is $mine: dump them with $version (pg_dumpall), remove the volume," \
    "run again and restore the dump; nothing was changed." | tee /tmp/refused >&2
  # it stays, unhealthy: to start again would tell the same
  exec sleep infinity
fi

exec postgres -D "$cluster" -c config_file=/config/postgresql.conf
