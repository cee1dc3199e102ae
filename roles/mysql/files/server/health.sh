#!/bin/sh
# A query, and not only whether somebody listens; or why there is no server.
if [ -s /tmp/refused ]; then
  cat /tmp/refused
  exit 1
fi
exec mariadb --no-defaults --socket=/tmp/mysqld.sock --skip-column-names --execute 'SELECT 1'
