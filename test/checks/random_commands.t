#!/usr/bin/env bash
# Random commands, put to the extension and to the PL/pgSQL peer in lock step:
# both give the same answers, record the same events and end with the same
# tables.  Prints TAP; run it within test/with-server.
#
#   RANDOM_SEED      which commands (default 1); the same seed, the same commands
#   RANDOM_COMMANDS  how many (default 100000)
#   RANDOM_CHECK     after how many the tables are compared (default 1000)
#   RANDOM_TIMEOUT   when a turn of 20 commands is given up (default 5min): the
#                    one that it is at then counts as one that does not end
#   RANDOM_PEER      the peer's files (default test/bench/peer/*.sql): give
#                    changed ones to see that the comparison notices
#   RANDOM_SELF=1    the peer against itself, without the extension
set -euo pipefail

seed=${RANDOM_SEED:-1}
commands=${RANDOM_COMMANDS:-100000}
check_every=${RANDOM_CHECK:-1000}
timeout=${RANDOM_TIMEOUT:-5min}
peer=(test/bench/peer/*.sql)
own_peer=("${peer[@]}")
[ -z "${RANDOM_PEER-}" ] || read -ra peer <<<"$RANDOM_PEER"
database=random_commands
tests=0

# Each outcome has to occur at least so often in 100,000 commands, so that the
# test does not pass because nothing happened.  A short run may miss any.
expected_outcomes() {
	cat <<-'END'
		311	add_batch: created
		49	add_batch: error 22001
		9	add_batch: error 22003
		41	add_batch: error 22004
		46	add_batch: error 22023
		1856	add_batch: error 23505
		1748	add_batch: same again
		17	add_batch: serves a line that waits
		48	add_batch: serves several lines that wait
		13	allocate: a line that was held
		69	allocate: a line that was shipped
		2111	allocate: by a later batch
		1602	allocate: by the first batch
		223	allocate: error 22001
		159	allocate: error 22004
		233	allocate: error 22023
		279	allocate: error SK001
		2906	allocate: error SK003
		76	allocate: holds end
		1	allocate: holds end, lines that wait are served
		4769	allocate: out of stock
		3690	allocate: same line again
		304	allocate: waits and goes on waiting
		208	allocate_lines: a line that was there
		520	allocate_lines: a line twice
		37	allocate_lines: each line is new and served
		15	allocate_lines: error 22001
		22	allocate_lines: error 22004
		7	allocate_lines: error 22023
		39	allocate_lines: error SK001
		42	allocate_lines: error SK003
		95	allocate_lines: every line was there
		252	allocate_lines: more than 20 lines
		31	allocate_lines: no line
		41	allocate_lines: out of stock, then with another quantity
		549	allocate_lines: several skus
		333	allocate_lines: some served, some out of stock
		186	allocate_order: a line begins to wait
		90	allocate_order: a line goes on waiting
		11	allocate_order: a line that is held is confirmed
		222	allocate_order: all, some cannot be served
		139	allocate_order: all, some cannot be served, some were there
		226	allocate_order: each line is served
		97	allocate_order: each line was there
		20	allocate_order: error 22001
		28	allocate_order: error 22003
		44	allocate_order: error 22004
		68	allocate_order: error 22023
		53	allocate_order: error SK001
		96	allocate_order: error SK003
		145	allocate_order: no line
		89	allocate_order: nothing can be served
		199	allocate_order: out of stock, goes on waiting
		209	allocate_order: partial, some cannot be served
		130	allocate_order: partial, some cannot be served, some were there
		78	allocate_order: several lines begin to wait
		768	allocate_order: several lines of a sku
		1015	allocate_order: several skus
		115	allocate_order: some are served, some begin to wait
		82	allocate_order: the rest is served
		1017	any command: undone
		3	available_to_promise: error 22001
		1	available_to_promise: error 22004
		2	available_to_promise: error 22023
		10	available_to_promise: error SK001
		223	available_to_promise: nothing
		364	available_to_promise: something
		146	cancel_backorder: done
		12	cancel_backorder: error 22001
		2	cancel_backorder: error 22004
		5	cancel_backorder: error 22023
		440	cancel_backorder: no such line
		558	change_batch_eta: another day
		8	change_batch_eta: error 22001
		3	change_batch_eta: error 22004
		4	change_batch_eta: error 22023
		103	change_batch_eta: error SK002
		33	change_batch_eta: holds end
		204	change_batch_eta: it arrives
		207	change_batch_eta: no line
		48	change_batch_eta: one line
		354	change_batch_eta: same day
		506	change_batch_eta: several lines
		1107	change_batch_quantity: a line loses its stock
		658	change_batch_quantity: a line moves
		82	change_batch_quantity: a line that is held leaves
		45	change_batch_quantity: error 22001
		24	change_batch_quantity: error 22003
		57	change_batch_quantity: error 22004
		73	change_batch_quantity: error 22023
		728	change_batch_quantity: error SK002
		1128	change_batch_quantity: error SK004
		132	change_batch_quantity: holds end
		1290	change_batch_quantity: less, but enough for all lines
		2054	change_batch_quantity: more
		442	change_batch_quantity: one line taken off
		110	change_batch_quantity: one moves, one loses
		973	change_batch_quantity: same quantity
		744	change_batch_quantity: serves lines that wait
		1023	change_batch_quantity: several lines leave
		1212	change_batch_quantity: several lines taken off
		194	change_batch_quantity: some leave, others are served
		535	change_batch_quantity: some stay, some leave
		182	confirm: a line
		8	confirm: error 22001
		4	confirm: error 22004
		3	confirm: error 22023
		303	confirm: error SK005
		536	confirm: nothing
		53	confirm: several lines
		31	deallocate: a line that was shipped
		3370	deallocate: done
		80	deallocate: error 22001
		32	deallocate: error 22004
		32	deallocate: error 22023
		28	deallocate: holds end
		1	deallocate: holds end, lines that wait are served
		2125	deallocate: no such line
		508	deallocate: serves a line that waits
		177	deallocate: serves several lines that wait
		197	extend_hold: a line
		3	extend_hold: error 22001
		8	extend_hold: error 22004
		15	extend_hold: error 22023
		306	extend_hold: error SK005
		537	extend_hold: nothing
		49	extend_hold: several lines
		8	hold: a line that was shipped
		927	hold: by a later batch
		742	hold: by the first batch
		43	hold: error 22001
		52	hold: error 22004
		122	hold: error 22023
		102	hold: error 53400
		85	hold: error SK001
		435	hold: error SK003
		23	hold: holds end
		1580	hold: out of stock
		1047	hold: same line again
		64	hold: waits and goes on waiting
		342	promise: a batch
		4	promise: error 22001
		3	promise: error 22004
		4	promise: error 22023
		9	promise: error SK001
		241	promise: out of stock
		18	purge_shipped: error 22004
		38	purge_shipped: nothing
		30	purge_shipped: something
		250	release: a line
		6	release: error 22001
		2	release: error 22004
		3	release: error 22023
		39	release: holds end
		1	release: holds end, lines that wait are served
		723	release: nothing
		9	release: serves a line that waits
		2	release: serves several lines that wait
		80	release: several lines
		300	ship: a line
		7	ship: an order of one line
		67	ship: an order of several lines
		6	ship: error 22001
		1	ship: error 22004
		4	ship: error 22023
		3	ship: error 55000
		1	ship: error SK005
		208	ship: nothing to ship
	END
}

query() {
	psql -XqAt -v ON_ERROR_STOP=1 -d "$database" "$@"
}

ok() {
	tests=$((tests + 1))
	echo "ok $tests - $1"
}

not_ok() {
	tests=$((tests + 1))
	echo "not ok $tests - $1"
}

# Reads lines, prints them as remarks.
remark() {
	sed 's/^/# /'
}

prepare() {
	local file
	# Few enough holds that some orders want more.
	export PGOPTIONS="-c client_min_messages=warning -c statement_timeout=$timeout
		-c alloc.max_holds_per_order=2"
	psql -Xq -v ON_ERROR_STOP=1 -d postgres \
		-c "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
	for file in "${peer[@]}"; do
		query -f "$file"
	done
	if [ -n "${RANDOM_SELF-}" ]; then
		ours=alloc_self
		cat "${own_peer[@]}" |
			sed "s/alloc_peer/$ours/g" | query
	else
		ours=alloc
		query -c 'CREATE EXTENSION alloc'
	fi
	for file in test/compare/*.sql; do
		query -f "$file"
	done
}

compare() {
	local test="seed $seed: $commands commands, same answers, events and tables"
	if query <<-END &&
		SELECT setseed($seed / 2147483648.0) \gset
		SELECT format('CALL compare.turn(%L, %s, %s, %s)', '$ours', turn, $commands, $check_every)
		  FROM generate_series(0, ($commands - 1) / 20) AS turn \gexec
	END
		[ "$(query -c 'SELECT count(*) FROM compare.difference')" = 0 ]; then
		ok "$test"
	else
		not_ok "$test"
		explain_difference
	fi
}

explain_difference() {
	local sql="
		SELECT format(E'command %s of seed $seed: %s', n, compare.as_sql(command))
		  FROM compare.journal
		 WHERE n = (SELECT max(n) FROM compare.difference);
		SELECT format(E'%s: the extension\n%s\n%s: the peer\n%s', what, ours, what, the_peer)
		  FROM compare.difference"
	query -c "$sql" | remark
	echo "# the last commands on the same sku, the peer's answer beside each:"
	query -c 'SELECT command FROM compare.reproduction' | tail -n 40 | remark
}

count_outcomes() {
	query -F $'\t' -c 'SELECT outcome, count(*) FROM compare.outcome GROUP BY outcome'
}

check_outcomes() {
	local least outcome count
	declare -A counts
	while IFS=$'\t' read -r outcome count; do
		counts[$outcome]=$count
	done < <(count_outcomes)
	while IFS=$'\t' read -r least outcome; do
		least=$((commands < 20000 ? 0 : least * commands / 100000))
		count=${counts[$outcome]:-0}
		printf '# %7d  %s\n' "$count" "$outcome"
		if ((count >= least)); then
			ok "$outcome: at least $least"
		else
			not_ok "$outcome: at least $least"
		fi
	done < <(expected_outcomes)
}

prepare
compare
check_outcomes
echo "1..$tests"
