# shellcheck shell=bash
# Variants of a pgbench run that take turns, each time in another order, so
# that what else the machine does falls on all of them.  Sourced, never run.
#
# A row says of each variant its title, its script (test/bench/NAME.sql) and,
# where they are not the usual ones, its database, the number of its clients
# and skus, and its settings (words like NAME=VALUE).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A title script database client_count sku_count settings

database_of() {
	echo "${database[$1]:-bench_$1}"
}

# measure VARIANT SECONDS [OPTION...]: the options are pgbench's.
measure() {
	local variant=$1 seconds=$2
	shift 2
	run_pgbench "$variant" "$(database_of "$variant")" \
		"test/bench/${script[$variant]}.sql" "$seconds" \
		"${client_count[$variant]:-$clients}" "${settings[$variant]-}" \
		-D skus="${sku_count[$variant]:-$skus}" "$@"
}

forget() {
	rm "$TMPDIR/$1".{tps,p50,p95,p99}
}

# Plans and caches as in a shop that has been open for a while.
warm_up() {
	local variant
	tidy_up
	for variant in "$@"; do
		measure "$variant" 2
		forget "$variant"
	done
}

# measure_round ROUND VARIANT...
measure_round() {
	local variant
	tidy_up
	for variant in $(rotated "$@"); do
		measure "$variant" "$seconds_each"
	done
}

print_throughput() {
	local variant
	printf '| variant | tps | lowest | highest | p50 ms | p95 ms | p99 ms |\n'
	printf '| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n'
	for variant in "$@"; do
		printf '| %s | %.0f | %.0f | %.0f | %.2f | %.2f | %.2f |\n' \
			"${title[$variant]}" "$(value "$variant" tps)" \
			"$(lowest "$variant" tps)" "$(highest "$variant" tps)" \
			"$(value "$variant" p50)" "$(value "$variant" p95)" \
			"$(value "$variant" p99)"
	done
}

print_ratio_header() {
	printf '\n| tps ratio | measured | bar | verdict |\n| --- | ---: | ---: | --- |\n'
}

# print_ratio VARIANT RIVAL BAR: without a bar, the ratio is information.
print_ratio() {
	local variant=$1 rival=$2 bar=$3 measured
	measured=$(ratio "$(value "$variant" tps)" "$(value "$rival" tps)" 2)
	printf '| %s : %s | %s | %s | %s |\n' "${title[$variant]}" "${title[$rival]}" \
		"$measured" "${bar:+>= $bar}" "${bar:+$(verdict "$measured" "$bar")}"
}
