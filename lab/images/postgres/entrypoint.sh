#!/bin/sh
# Make the cluster of POSTGRES_USER and POSTGRES_DB once, then become the server.
set -eu

if [ "$1" != postgres ]; then
  exec "$@"
fi

if [ "$(id -u)" -eq 0 ]; then
  chown postgres:postgres "$(dirname "$PGDATA")"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ ! -e "$PGDATA" ]; then
  : "${POSTGRES_USER:?is needed to make a cluster}" "${POSTGRES_DB:?is needed to make a cluster}"
  : "${POSTGRES_PASSWORD_FILE:?is needed to make a cluster}"
  # Renamed when it is complete: a container killed on the way leaves nothing that looks like a cluster.
  new="$PGDATA.new"
  rm -rf "$new"
  initdb --no-sync --pgdata="$new" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
    --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >>"$new/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$new" postgres >/dev/null
  sync
  mv "$new" "$PGDATA"
fi

exec "$@" -D "$PGDATA" -c "listen_addresses=*"
