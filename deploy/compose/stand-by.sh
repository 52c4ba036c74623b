#!/bin/bash
# A stand-by: a copy of the primary, made once, that follows it under the name that the primary waits for.
set -euo pipefail
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
    until pg_basebackup --pgdata="$data" --wal-method=stream --write-recovery-conf \
        --dbname="host=postgres-1 user=tapewatch application_name=postgres-2"; do
        rm -rf "${data:?}"/*
        sleep 1
    done
    chmod 0700 "$data"
fi
exec postgres -D "$data" -c hot_standby=on
