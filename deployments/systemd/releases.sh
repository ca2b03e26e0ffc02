# shellcheck shell=sh
# Shared by install.sh, deploy.sh and rollback.sh: releases are folders, and `current` is a link to one.
# BATON_ROOT is put in front of every path, for tests and for images of a system.

lib=${BATON_ROOT:-}/usr/local/lib/baton
roles='ingress worker scheduler'

say() { echo "$(basename "$0"): $*"; }
die() {
    say "$*" >&2
    exit 1
}

must_be_root() {
    [ -n "${BATON_ROOT:-}" ] || [ "$(id -u)" -eq 0 ] || die "run this as root"
}

# Puts a binary into a folder of its own, named by its version and content, and prints the folder below $lib.
add_release() { # binary
    version=$("$1" version) || die "$1 does not run on this machine"
    number=$(printf '%s' "$version" | sed -n 's/.*"version":"\([^"]*\)".*/\1/p')
    [ -n "$number" ] || die "$1 says no version: is it Baton's binary?"
    sum=$(sha256sum "$1" | cut -c 1-12)
    release=releases/$number-$sum
    mkdir -p "$lib/$release"
    install -m 755 "$1" "$lib/$release/baton.new"
    mv "$lib/$release/baton.new" "$lib/$release/baton"
    echo "$release"
}

# Points a link at a release in one step: nobody sees it missing.
point() { # link, release
    ln -sfn "$2" "$lib/$1.new"
    mv -T "$lib/$1.new" "$lib/$1"
}

port_of() {
    case $1 in
        ingress) echo 9464 ;;
        worker) echo 9465 ;;
        scheduler) echo 9466 ;;
    esac
}

# Waits until a role says that it is ready, for BATON_PATIENCE seconds at most.
until_ready() { # role
    left=${BATON_PATIENCE:-60}
    until "$lib/current/baton" healthcheck --admin "127.0.0.1:$(port_of "$1")" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 1
    done
}

# Starts the roles that are enabled here anew, one after the other. The unit's stop waits for the drain.
restart_roles() {
    for role in $roles; do
        systemctl is-enabled --quiet "baton-$role" || continue
        systemctl restart "baton-$role" || return 1
        until_ready "$role" || {
            say "baton-$role is not ready: journalctl --unit baton-$role" >&2
            return 1
        }
        say "baton-$role is ready"
    done
}
