#!/bin/sh
# Replaces the running version: migrates, swaps the binary, starts one role after the other anew and waits for
# each. If one does not become ready, the old binary is put back and started, and this ends with 1.
#
#   ./deploy.sh BINARY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deployments/systemd/releases.sh
. "$here/releases.sh"
[ $# -eq 1 ] || die "name the binary: ./deploy.sh ./baton"
must_be_root
[ -e "$lib/current" ] || die "nothing is installed here: ./install.sh comes first"

old=$(readlink "$lib/current")
new=$(add_release "$1")
[ "$new" != "$old" ] || die "$(basename "$new") is what runs already"

# The migrations of the next version suit the running one too, so they stay if it does not start.
point next "$new"
systemctl start baton-migrate || die "the migration failed, and $(basename "$old") goes on: journalctl --unit baton-migrate"
point current "$new"
if restart_roles; then
    point previous "$old"
    say "$(basename "$new") runs; ./rollback.sh goes back to $(basename "$old")"
    exit 0
fi
say "going back to $(basename "$old")" >&2
point current "$old"
restart_roles || die "the old version does not become ready either"
die "$(basename "$new") did not start; $(basename "$old") runs again"
