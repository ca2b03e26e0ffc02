#!/bin/sh
# Renews .sqlx, the metadata by which a build checks every statement without a database.
#
#   crates/store/prepare-queries.sh           write it anew
#   crates/store/prepare-queries.sh --check   fail if it is not what the sources and migrations say
#
# Uses the PostgreSQL of BATON_TEST_POSTGRES_URL, or starts one for itself. Needs psql, because the
# store's own migrator cannot be built before its statements are known.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
mode=${1:-write}
case $mode in
write | --check) ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
command -v psql >/dev/null || {
    echo "$0: psql is needed (Debian: apt-get install postgresql-client)" >&2
    exit 1
}
if [ -z "${BATON_TEST_POSTGRES_URL:-}" ]; then
    exec cargo run --quiet -p baton-devstack --bin with-devstack -- \
        --postgres -- "$root/crates/store/prepare-queries.sh" "$@"
fi

fresh=$(mktemp -d)
database=baton_queries_$$
sql() {
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 "$@" </dev/null
}
clean_up() {
    rm -rf "$fresh"
    sql "$BATON_TEST_POSTGRES_URL" -c "DROP DATABASE IF EXISTS $database" || true
}
trap clean_up EXIT

sql "$BATON_TEST_POSTGRES_URL" -c "CREATE DATABASE $database"
# The same address with another database: what stands between the last / and a ? is the name.
address=$(printf '%s' "$BATON_TEST_POSTGRES_URL" | sed -E "s|^(postgres(ql)?://[^/?]*)(/[^?]*)?|\1/$database|")
for migration in migrations/*.sql; do
    sql "$address" --single-transaction --file "$migration"
done

# The macros write as they are expanded, which cargo does only for a crate that has changed.
touch crates/store/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh DATABASE_URL=$address \
    cargo check --quiet -p baton-store

if [ "$mode" = --check ]; then
    if ! diff -r .sqlx "$fresh" >/dev/null; then
        echo ".sqlx is stale: run crates/store/prepare-queries.sh and commit what it writes" >&2
        diff -rq .sqlx "$fresh" >&2 || true
        exit 1
    fi
else
    rm -rf .sqlx
    mkdir .sqlx
    cp "$fresh"/*.json .sqlx/
fi
