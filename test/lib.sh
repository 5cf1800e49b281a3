# shellcheck shell=bash
# What the shell scripts of this project share.  Sourced, never run.

PG_CONFIG=${PG_CONFIG:-pg_config}
export PG_CONFIG

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# Runs a command as root, by sudo where that is needed.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif have sudo; then
		sudo "$@"
	else
		die "this needs root, or sudo: $*"
	fi
}
