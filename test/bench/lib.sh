# shellcheck shell=bash
# What the benchmarks share.  Sourced, never run.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# shellcheck disable=SC2034
rounds=${ROUNDS:-5} seconds_each=${SECONDS_EACH:-10}
clients=${CLIENTS:-16}
skus=${SKUS:-10000}

# A database for each variant, so that each has only its own rows.
query() {
	local database=$1
	shift
	PGOPTIONS='-c client_min_messages=warning' \
		psql -XqAt -v ON_ERROR_STOP=1 -d "$database" "$@"
}

setting() {
	query postgres -c "SHOW $1"
}

print_machine() {
	local name
	printf '%s cores, %s memory, Linux %s, PostgreSQL %s, %s' \
		"$(nproc)" \
		"$(awk '/^MemTotal:/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo)" \
		"$(uname -r)" "$(setting server_version)" "$(date +%F)"
	for name in fsync synchronous_commit commit_delay shared_buffers max_wal_size; do
		printf ', %s=%s' "$name" "$(setting $name)"
	done
	printf '\n'
}

# Between measurements, so that none pays for the one before.
tidy_up() {
	vacuumdb --all --analyze --quiet
	query postgres -c CHECKPOINT
}

# rotated N ITEM...: the items, beginning with the one after the first N.
rotated() {
	local n=$(($1 % ($# - 1)))
	shift
	printf '%s\n' "${@:n + 1}" "${@:1:n}"
}

# Reads numbers, prints the one at or above a fraction (0.5: the median).
percentile() {
	sort -g | awk -v fraction="$1" '
		{ value[NR] = $1 }
		END {
			at = int(NR * fraction)
			if (at < NR * fraction)
				at++
			print value[at < 1 ? 1 : at]
		}'
}

# Reads numbers; of an even count, the mean of the middle two.
median() {
	sort -g | awk '
		{ value[NR] = $1 }
		END { print (value[int((NR + 1) / 2)] + value[int((NR + 2) / 2)]) / 2 }'
}

# ratio A B DIGITS
ratio() {
	awk -v a="$1" -v b="$2" -v digits="$3" 'BEGIN { printf "%.*f", digits, a / b }'
}

# verdict RATIO BAR
verdict() {
	awk -v ratio="$1" -v bar="$2" 'BEGIN { print (ratio >= bar ? "reached" : "BELOW") }'
}

# run_pgbench NAME DATABASE SCRIPT SECONDS: one measurement, added to
# $TMPDIR/NAME.tps, .p50, .p95 and .p99 (milliseconds).
run_pgbench() {
	local name=$1 database=$2 script=$3 seconds=$4 log=$TMPDIR/latency tps p
	rm -f "$log".*
	runs=$((runs + 1))
	tps=$(pgbench -n -M prepared -c "$clients" -j 2 -T "$seconds" \
		-D skus="$skus" -D n=$((runs * 100000000)) \
		--log --log-prefix="$log" --sampling-rate=0.1 \
		-f "$script" "$database" 2>"$TMPDIR/pgbench.err" |
		awk '/^tps = / { print $3 }') ||
		{ cat "$TMPDIR/pgbench.err" >&2; die "pgbench failed: $name"; }
	echo "$tps" >>"$TMPDIR/$name.tps"
	# The third field of a line is the latency in microseconds.
	awk '{ print $3 / 1000 }' "$log".* >"$TMPDIR/sample"
	for p in 50 95 99; do
		percentile "0.$p" <"$TMPDIR/sample" >>"$TMPDIR/$name.p$p"
	done
}
runs=0
