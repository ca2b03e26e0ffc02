#!/bin/sh
# Installs Baton with units for systemd on this machine. Replaces no file in /etc/baton.
#
#   ./install.sh BINARY [ROLE...]     the roles to run here: ingress, worker, scheduler; all of them if none is named
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deployments/systemd/releases.sh
. "$here/releases.sh"
[ $# -ge 1 ] || die "name the binary: ./install.sh ./baton"
must_be_root
binary=$1
shift
[ $# -gt 0 ] || set -- ingress worker scheduler
for role; do
    [ -n "$(port_of "$role")" ] || die "there is no role $role: ingress, worker, scheduler"
done
[ ! -e "$lib/current" ] || die "Baton is installed already: ./deploy.sh takes the next version"

release=$(add_release "$binary")
point current "$release"
mkdir -p "${BATON_ROOT:-}/usr/local/bin"
ln -sfn /usr/local/lib/baton/current/baton "${BATON_ROOT:-}/usr/local/bin/baton"

etc=${BATON_ROOT:-}/etc/baton
"$lib/current/baton" init "$etc"
if [ ! -e "$etc/baton.env" ]; then
    cat >"$etc/baton.env" <<'END'
# The environment of all roles. Secrets are in secrets/, and each unit reads its own.
NATS_URL=nats://localhost:4222
# The model's server, up to and with /v1; its key is in secrets/llm_api_key.
LLM_BASE_URL=
LLM_DEFAULT_MODEL=
END
fi
units=${BATON_ROOT:-}/etc/systemd/system
mkdir -p "$units"
for unit in "$here"/baton-*.service "$here"/baton-*.socket; do
    install -m 644 "$unit" "$units/"
done
systemctl daemon-reload
for role; do
    systemctl enable --quiet "baton-$role"
    [ "$role" != ingress ] || systemctl enable --quiet baton-ingress.socket
done
cat <<END
installed $(basename "$release"). Next:
  1. in $etc/baton.env, set LLM_BASE_URL; the key of the model's server belongs into
     $etc/secrets/llm_api_key (install -m 600 /dev/stdin $etc/secrets/llm_api_key)
  2. start nats-server with $etc/nats/nats.conf, and $etc/secrets/nats.env in its environment
  3. make the database and its users:
     DATABASE_ADMIN_URL=postgres://… DATABASE_URL_FILE=$etc/secrets/database_url \\
     DATABASE_MIGRATE_URL_FILE=$etc/secrets/database_migrate_url NATS_URL=nats://localhost:4222 \\
     BATON_NATS__USER=migrate BATON_NATS__PASSWORD_FILE=$etc/secrets/nats_migrate_password baton migrate
  4. systemctl start $(printf 'baton-%s ' "$@")
  5. DATABASE_URL_FILE=$etc/secrets/database_url baton keys create --name first
END
