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
		55	add_batch: error 22001
		13	add_batch: error 22003
		41	add_batch: error 22004
		48	add_batch: error 22023
		1787	add_batch: error 23505
		1758	add_batch: same again
		15	add_batch: serves a line that waits
		57	add_batch: serves several lines that wait
		10	allocate: a line that was held
		61	allocate: a line that was shipped
		2085	allocate: by a later batch
		1454	allocate: by the first batch
		203	allocate: error 22001
		160	allocate: error 22004
		264	allocate: error 22023
		284	allocate: error SK001
		2577	allocate: error SK003
		79	allocate: holds end
		5509	allocate: out of stock
		3298	allocate: same line again
		407	allocate: waits and goes on waiting
		194	allocate_lines: a line that was there
		494	allocate_lines: a line twice
		33	allocate_lines: each line is new and served
		13	allocate_lines: error 22001
		19	allocate_lines: error 22004
		14	allocate_lines: error 22023
		44	allocate_lines: error SK001
		39	allocate_lines: error SK003
		80	allocate_lines: every line was there
		230	allocate_lines: more than 20 lines
		23	allocate_lines: no line
		34	allocate_lines: out of stock, then with another quantity
		547	allocate_lines: several skus
		345	allocate_lines: some served, some out of stock
		221	allocate_order: a line begins to wait
		121	allocate_order: a line goes on waiting
		13	allocate_order: a line that is held is confirmed
		256	allocate_order: all, some cannot be served
		160	allocate_order: all, some cannot be served, some were there
		155	allocate_order: each line is served
		69	allocate_order: each line was there
		31	allocate_order: error 22001
		31	allocate_order: error 22003
		67	allocate_order: error 22004
		63	allocate_order: error 22023
		45	allocate_order: error SK001
		104	allocate_order: error SK003
		151	allocate_order: no line
		103	allocate_order: nothing can be served
		247	allocate_order: out of stock, goes on waiting
		234	allocate_order: partial, some cannot be served
		159	allocate_order: partial, some cannot be served, some were there
		87	allocate_order: several lines begin to wait
		754	allocate_order: several lines of a sku
		1013	allocate_order: several skus
		132	allocate_order: some are served, some begin to wait
		49	allocate_order: the rest is served
		1038	any command: undone
		3	available_to_promise: error 22001
		1	available_to_promise: error 22023
		13	available_to_promise: error SK001
		244	available_to_promise: nothing
		340	available_to_promise: something
		171	cancel_backorder: done
		8	cancel_backorder: error 22001
		3	cancel_backorder: error 22004
		4	cancel_backorder: error 22023
		420	cancel_backorder: no such line
		560	change_batch_eta: another day
		8	change_batch_eta: error 22001
		3	change_batch_eta: error 22004
		1	change_batch_eta: error 22023
		118	change_batch_eta: error SK002
		24	change_batch_eta: holds end
		205	change_batch_eta: it arrives
		225	change_batch_eta: no line
		51	change_batch_eta: one line
		323	change_batch_eta: same day
		489	change_batch_eta: several lines
		1305	change_batch_quantity: a line loses its stock
		617	change_batch_quantity: a line moves
		88	change_batch_quantity: a line that is held leaves
		54	change_batch_quantity: error 22001
		25	change_batch_quantity: error 22003
		52	change_batch_quantity: error 22004
		80	change_batch_quantity: error 22023
		704	change_batch_quantity: error SK002
		1052	change_batch_quantity: error SK004
		101	change_batch_quantity: holds end
		1145	change_batch_quantity: less, but enough for all lines
		2145	change_batch_quantity: more
		470	change_batch_quantity: one line taken off
		112	change_batch_quantity: one moves, one loses
		1034	change_batch_quantity: same quantity
		936	change_batch_quantity: serves lines that wait
		1089	change_batch_quantity: several lines leave
		1340	change_batch_quantity: several lines taken off
		246	change_batch_quantity: some leave, others are served
		605	change_batch_quantity: some stay, some leave
		170	confirm: a line
		8	confirm: error 22001
		4	confirm: error 22004
		2	confirm: error 22023
		267	confirm: error SK005
		622	confirm: nothing
		42	confirm: several lines
		25	deallocate: a line that was shipped
		3262	deallocate: done
		63	deallocate: error 22001
		40	deallocate: error 22004
		32	deallocate: error 22023
		20	deallocate: holds end
		5	deallocate: holds end, lines that wait are served
		2277	deallocate: no such line
		620	deallocate: serves a line that waits
		221	deallocate: serves several lines that wait
		162	extend_hold: a line
		3	extend_hold: error 22001
		9	extend_hold: error 22004
		13	extend_hold: error 22023
		255	extend_hold: error SK005
		568	extend_hold: nothing
		40	extend_hold: several lines
		12	hold: a line that was shipped
		787	hold: by a later batch
		687	hold: by the first batch
		46	hold: error 22001
		52	hold: error 22004
		111	hold: error 22023
		60	hold: error 53400
		98	hold: error SK001
		439	hold: error SK003
		18	hold: holds end
		1834	hold: out of stock
		1015	hold: same line again
		91	hold: waits and goes on waiting
		328	promise: a batch
		2	promise: error 22001
		5	promise: error 22004
		7	promise: error 22023
		12	promise: error SK001
		256	promise: out of stock
		18	purge_shipped: error 22004
		42	purge_shipped: nothing
		27	purge_shipped: something
		244	release: a line
		6	release: error 22001
		1	release: error 22004
		3	release: error 22023
		39	release: holds end
		1	release: holds end, lines that wait are served
		750	release: nothing
		12	release: serves a line that waits
		2	release: serves several lines that wait
		44	release: several lines
		293	ship: a line
		5	ship: an order of one line
		52	ship: an order of several lines
		5	ship: error 22001
		1	ship: error 22004
		5	ship: error 22023
		5	ship: error 55000
		14	ship: error SK005
		214	ship: nothing to ship
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
