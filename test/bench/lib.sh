# shellcheck shell=bash
# What the benchmarks share: the server, statistics, pgbench.  Sourced, never
# run.  What a table of variants needs is in variants.sh.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# shellcheck disable=SC2034
rounds=${ROUNDS:-5} seconds_each=${SECONDS_EACH:-10}
# shellcheck disable=SC2034
clients=${CLIENTS:-16} skus=${SKUS:-10000}

# What the servers have that is not PostgreSQL's default, for test/with-server.
# shellcheck disable=SC2034
server_settings=(-c shared_buffers=1GB -c max_wal_size=8GB -c max_connections=200)

query() {
	local database=$1
	shift
	PGOPTIONS='-c client_min_messages=warning -c alloc.notify=off' \
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

# A database for each variant, so that each has only its own rows.
create_database() {
	query postgres -c "CREATE DATABASE $1${2:+ TEMPLATE $2}"
}

drop_database() {
	query postgres -c "DROP DATABASE IF EXISTS $1"
}

drop_databases() {
	local database
	for database in $(query postgres -c "
		SELECT datname FROM pg_database WHERE datname LIKE 'bench\_%'"); do
		drop_database "$database"
	done
}

install_alloc() {
	query "$1" -c 'CREATE EXTENSION alloc'
}

install_alloc_peer() {
	cat test/bench/peer/*.sql | query "$1"
}

# create_shop DATABASE SCHEMA SKUS: the extension or the peer, with a batch for
# each sku that never runs out.
create_shop() {
	local database=$1 schema=$2 skus=$3
	create_database "$database"
	"install_$schema" "$database"
	query "$database" -c "
		SELECT count($schema.add_batch('batch-' || n, 'SKU-' || 100000 + n, 1000000000000))
		  FROM generate_series(1, $skus) AS n" >/dev/null
}

# in_chunks N COMMAND...: runs COMMAND FIRST LAST for each part of 1..N, of
# 100000.
in_chunks() {
	local n=$1 chunk=100000 first last
	shift
	for ((first = 1; first <= n; first += chunk)); do
		last=$((first + chunk - 1))
		"$@" "$first" $((last < n ? last : n))
	done
}

# allocate_range DATABASE ORDERID SKU FIRST LAST: one line for each n from FIRST
# to LAST; ORDERID and SKU are expressions in n.
allocate_range() {
	query "$1" -c "
		SELECT count(batchref) FROM alloc.allocate_lines((
			SELECT array_agg(ROW($2, $3, 1)::alloc.order_line ORDER BY n)
			  FROM generate_series($4::bigint, $5::bigint) AS n))" >"$TMPDIR/allocated"
	[ "$(<"$TMPDIR/allocated")" = $(($5 - $4 + 1)) ] || die "out of stock: $1"
}

# note_calls DATABASE N: that many calls allocated a line of one piece.
note_calls() {
	echo "$2" >>"$TMPDIR/$1.calls"
}

# check_work DATABASE SCHEMA: nobody is fast who did not do the work.
check_work() {
	local database=$1 schema=$2 calls complete
	calls=$(awk '{ sum += $1 } END { printf "%.0f", sum }' "$TMPDIR/$database.calls")
	complete=$(query "$database" -c "
		SELECT count(*) = $calls
			   AND (SELECT sum(allocated_qty) FROM $schema.batches) = $calls
			   AND (SELECT count(*) FROM $schema.event WHERE type = 'allocated') = $calls
		  FROM $schema.allocation")
	[[ $calls -gt 0 && $complete = t ]] || die "rows are missing: $database"
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

# value NAME WHAT: the median over the rounds, and the extremes.
value() {
	median <"$TMPDIR/$1.$2"
}

lowest() {
	sort -g "$TMPDIR/$1.$2" | head -n 1
}

highest() {
	sort -g "$TMPDIR/$1.$2" | tail -n 1
}

# ratio A B DIGITS
ratio() {
	awk -v a="$1" -v b="$2" -v digits="$3" 'BEGIN { printf "%.*f", digits, a / b }'
}

# verdict RATIO BAR, where the bar is the least, and where it is the most.
verdict() {
	awk -v ratio="$1" -v bar="$2" 'BEGIN { print (ratio >= bar ? "reached" : "BELOW") }'
}

verdict_at_most() {
	awk -v ratio="$1" -v bar="$2" 'BEGIN { print (ratio <= bar ? "reached" : "ABOVE") }'
}

# Adds up what psql's \timing printed, in seconds.
seconds_of() {
	awk '/^Time:/ { sum += $2 } END { print sum / 1000 }'
}

# as_options NAME=VALUE...: what to set PGOPTIONS to.
as_options() {
	printf -- '-c %s ' "$@"
}

# run_pgbench NAME DATABASE SCRIPT SECONDS CLIENTS SETTINGS [OPTION...]: one
# measurement, added to $TMPDIR/NAME.tps, .p50, .p95 and .p99 (milliseconds).
# SETTINGS are words like NAME=VALUE; the options are pgbench's.
run_pgbench() {
	local name=$1 database=$2 script=$3 seconds=$4 clients=$5 settings=$6
	local log=$TMPDIR/latency output=$TMPDIR/pgbench.out p
	shift 6
	rm -f "$log".*
	runs=$((runs + 1))
	# shellcheck disable=SC2086
	PGOPTIONS=$(as_options alloc.notify=off $settings) \
		pgbench -n -M prepared -c "$clients" -j 2 -T "$seconds" \
		-D skus="$skus" -D step=1 -D n=$((runs * 100000000)) "$@" \
		--log --log-prefix="$log" --sampling-rate=0.1 \
		-f "$script" "$database" >"$output" 2>"$TMPDIR/pgbench.err" ||
		{ cat "$TMPDIR/pgbench.err" >&2; die "pgbench failed: $name"; }
	awk '/^tps = / { print $3 }' "$output" >>"$TMPDIR/$name.tps"
	note_calls "$database" \
		"$(awk -F ': ' '/^number of transactions actually processed/ { print $2 + 0 }' "$output")"
	# The third field of a line is the latency in microseconds.
	awk '{ print $3 / 1000 }' "$log".* >"$TMPDIR/sample"
	for p in 50 95 99; do
		percentile "0.$p" <"$TMPDIR/sample" >>"$TMPDIR/$name.p$p"
	done
}
runs=0
