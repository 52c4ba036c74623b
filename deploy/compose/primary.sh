#!/bin/bash
# The first start of the primary: databases, and a stand-by that commits wait for. The server of this moment is alone and
# waits for nobody: what is set here holds from its next start on.
set -euo pipefail
for database in ledger store saga; do
    psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -c "CREATE DATABASE $database"
done
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -c "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"postgres-2\")'"
echo "host replication tapewatch all scram-sha-256" >> "$PGDATA/pg_hba.conf"
