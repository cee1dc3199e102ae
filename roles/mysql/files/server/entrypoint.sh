#!/bin/sh
# Make the data directory where there is none, refuse one of another major version, and be the server.
set -eu
data=/data/server
made=/data/new

if [ ! -e "$data" ]; then
  rm -rf "$made"
  mariadb-install-db --no-defaults --datadir="$made" --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user=mysql
  mv "$made" "$data"
fi

major() { sed -n 's/^\([0-9]*\.[0-9]*\)\..*/\1/p'; }
# its patch releases go together: only the first two numbers are compared
version=$(major < "$data/mariadb_upgrade_info")
mine=$(mariadbd --version | sed 's/.*Ver //' | major)
if [ "$version" != "$mine" ]; then
  echo "The data are of MariaDB $version and this is $mine: dump them with $version (mariadb-dump), remove the volume," \
    "run again and restore the dump; nothing was changed." | tee /tmp/refused >&2
  # it stays, unhealthy: to start again would tell the same
  exec sleep infinity
fi

exec mariadbd --no-defaults --datadir="$data" --socket=/tmp/mysqld.sock "$@"
