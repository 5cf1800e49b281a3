# shellcheck shell=bash
# Throw-away roots with a Debian release, and what runs in them.  Sourced, after
# lib.sh, never run.
#
# A root is made with mmdebstrap from the Debian mirror of this machine's own
# /etc/apt, and uses the proxy of its apt.  All this needs root.

# Can roots be made here?  Says what is missing.
roots_possible() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "this needs root"
	elif ! have mmdebstrap; then
		echo "this needs mmdebstrap"
	elif [ -z "$(mirror_of_this_machine)" ]; then
		echo "/etc/apt names no Debian mirror, or apt-get update was not run"
	elif ! with_own_mounts sh -c 'mount -t tmpfs none /mnt && umount /mnt' 2>/dev/null; then
		echo "this container forbids mounts"
	else
		return 0
	fi
	return 1
}

mirror_of_this_machine() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && !seen++ { print $2 }'
}

# make_root DIR PACKAGES SUITE...: of the first suite, with the packages of the
# others beside it.  A mirror may be older than what its lists are valid for.
make_root() {
	local dir=$1 packages=$2 suite=$3 mirror proxies proxy options=() sources=() log
	shift 2
	mirror=$(mirror_of_this_machine)
	mapfile -t proxies < <(apt-config dump | grep -iE '^Acquire::https?::proxy ' || true)
	for proxy in 'Acquire::Check-Valid-Until "false";' ${proxies[@]+"${proxies[@]}"}; do
		options+=("--aptopt=$proxy")
	done
	[ $# -eq 1 ] || options+=("--aptopt=APT::Default-Release \"$suite\";")
	for suite in "$@"; do
		sources+=("deb $mirror $suite main")
	done
	log=$(mktemp)
	if ! mmdebstrap -q --variant=minbase "${options[@]}" --include="$packages" \
		"$1" "$dir" "${sources[@]}" >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
	cp /etc/resolv.conf "$dir/etc/resolv.conf" 2>/dev/null || true
}

# put_tree DIR: the work tree, without what was built; as /alloc in the root.
put_tree() {
	rm -rf "$1/alloc"
	mkdir -p "$1/alloc"
	tar -cf - --exclude=./.git --exclude='./tmp_check*' --exclude='*.o' --exclude='*.bc' \
		--exclude=./alloc.so --exclude=./results --exclude=./build . |
		tar -xf - --no-same-owner -C "$1/alloc"
}

# Runs a command that sees only its own mounts and processes, which end with it.
# In a plain chroot, whose / is no mount, mounts may be seen outside as well.
with_own_mounts() {
	local propagation=private
	unshare --mount true 2>/dev/null || propagation=unchanged
	unshare --mount --propagation "$propagation" --pid --fork --kill-child "$@"
}

# run_in_root DIR COMMAND [ARG...]: by bash, in /alloc.
run_in_root() {
	local dir=$1 status=0 path
	shift
	# shellcheck disable=SC2016
	with_own_mounts bash -euo pipefail -c '
		dir=$1
		shift
		mount -t proc proc "$dir/proc"
		mount --bind /dev "$dir/dev"
		mount -t tmpfs tmpfs "$dir/dev/shm"
		exec chroot "$dir" env -i HOME=/tmp LANG=C.UTF-8 \
			PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
			bash -euo pipefail -c "cd /alloc; $1" bash "${@:2}"' \
		bash "$dir" "$@" </dev/null || status=$?
	for path in dev/shm dev proc; do
		! mountpoint -q "$dir/$path" || umount --lazy "$dir/$path"
	done
	return $status
}

# A make above us: its jobs and variables are not meant for those in a root.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
