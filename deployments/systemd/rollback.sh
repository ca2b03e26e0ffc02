#!/bin/sh
# Goes back to the version that ran before the last deploy.sh. A second call goes forward again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deployments/systemd/releases.sh
. "$here/releases.sh"
must_be_root
[ -e "$lib/previous" ] || die "there is no earlier version here"
from=$(readlink "$lib/current")
to=$(readlink "$lib/previous")
point current "$to"
point previous "$from"
restart_roles || die "$(basename "$to") does not become ready"
say "$(basename "$to") runs; ./rollback.sh goes to $(basename "$from") again"
