#!/bin/sh
# Make the data where there is none, with root's password from a file, then be the server.
set -eu
data=/data/server
if [ ! -e "$data" ]; then
  password=$(cat "$MYSQL_ROOT_PASSWORD_FILE")
  cat > /tmp/first.sql <<SQL
ALTER USER root@localhost IDENTIFIED BY '$password';
CREATE USER root@'%' IDENTIFIED BY '$password';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
  "$1" --no-defaults --initialize-insecure --init-file=/tmp/first.sql --datadir=/data/new
  rm /tmp/first.sql
  mv /data/new "$data"
fi
exec "$@"
