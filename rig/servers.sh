# Debian packages of the real servers that tests and benches start; sourced by scripts that have say().

POLICY=/usr/sbin/policy-rc.d
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# As root on Debian, install those of the given packages that are missing; set `missing` to the rest.
install_servers() {
    find_missing "$@"
    if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        install_missing "${missing[@]}" || say "apt-get could not install them"
        find_missing "$@"
    fi
}

is_there() {
    case $1 in
        postgresql) compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null ;;
        rabbitmq-server) test -x /usr/lib/rabbitmq/bin/rabbitmq-server ;;
        mosquitto-clients) command -v mosquitto_pub >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

find_missing() {
    missing=()
    local package
    for package in "$@"; do
        is_there "$package" || missing+=("$package")
    done
}

# apt starts each server that it installs unless policy-rc.d forbids it; a previous file is restored.
install_missing() (
    before=$(mktemp -d)
    trap 'rm -f "$POLICY"; if [ -e "$before/policy" ] || [ -L "$before/policy" ]; then mv "$before/policy" "$POLICY"; fi; rmdir "$before"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then mv "$POLICY" "$before/policy"; fi
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "apt-get update failed; trying with the present package lists"
    apt-get install -y -qq --no-install-recommends "$@"
)
