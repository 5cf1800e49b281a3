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
		150	add_batch: created
		50	add_batch: error 22001
		5	add_batch: error 22003
		20	add_batch: error 22004
		50	add_batch: error 22023
		500	add_batch: error 23505
		500	add_batch: same again
		50	allocate: a line that was shipped
		2000	allocate: by a later batch
		2000	allocate: by the first batch
		200	allocate: error 22001
		100	allocate: error 22004
		200	allocate: error 22023
		50	allocate: error SK001
		500	allocate: error SK003
		2000	allocate: out of stock
		1000	allocate: same line again
		300	allocate: waits and goes on waiting
		100	allocate_lines: a line that was there
		200	allocate_lines: a line twice
		20	allocate_lines: each line is new and served
		2	allocate_lines: error 22001
		5	allocate_lines: error 22004
		2	allocate_lines: error 22023
		20	allocate_lines: error SK001
		20	allocate_lines: error SK003
		20	allocate_lines: every line was there
		100	allocate_lines: more than 20 lines
		5	allocate_lines: no line
		20	allocate_lines: out of stock, then with another quantity
		200	allocate_lines: several skus
		200	allocate_lines: some served, some out of stock
		50	allocate_order: all, some cannot be served
		10	allocate_order: all, some cannot be served, some were there
		100	allocate_order: each line is served
		20	allocate_order: each line was there
		2	allocate_order: error 22001
		2	allocate_order: error 22003
		10	allocate_order: error 22004
		10	allocate_order: error 22023
		10	allocate_order: error SK001
		5	allocate_order: error SK003
		20	allocate_order: no line
		20	allocate_order: nothing can be served
		50	allocate_order: partial, some cannot be served
		10	allocate_order: partial, some cannot be served, some were there
		100	allocate_order: several lines of a sku
		200	allocate_order: several skus
		50	allocate_order: the rest is served
		500	any command: undone
		2	available_to_promise: error 22001
		1	available_to_promise: error 22004
		2	available_to_promise: error 22023
		5	available_to_promise: error SK001
		20	available_to_promise: nothing
		200	available_to_promise: something
		500	change_batch_quantity: a line loses its stock
		500	change_batch_quantity: a line moves
		50	change_batch_quantity: error 22001
		20	change_batch_quantity: error 22003
		50	change_batch_quantity: error 22004
		50	change_batch_quantity: error 22023
		200	change_batch_quantity: error SK002
		200	change_batch_quantity: error SK004
		500	change_batch_quantity: less, but enough for all lines
		500	change_batch_quantity: more
		200	change_batch_quantity: one line taken off
		100	change_batch_quantity: one moves, one loses
		500	change_batch_quantity: same quantity
		500	change_batch_quantity: several lines leave
		500	change_batch_quantity: several lines taken off
		200	change_batch_quantity: serves lines that wait
		20	change_batch_quantity: some leave, others are served
		200	change_batch_quantity: some stay, some leave
		20	allocate: a line that was held
		100	allocate: holds end
		30	change_batch_eta: holds end
		100	change_batch_quantity: a line that is held leaves
		200	change_batch_quantity: holds end
		100	confirm: a line
		2	confirm: error 22001
		2	confirm: error 22004
		2	confirm: error 22023
		150	confirm: error SK005
		300	confirm: nothing
		5	confirm: several lines
		10	deallocate: a line that was shipped
		1000	deallocate: done
		20	deallocate: error 22001
		20	deallocate: error 22004
		20	deallocate: error 22023
		1000	deallocate: no such line
		200	deallocate: serves a line that waits
		50	deallocate: serves several lines that wait
		50	add_batch: serves a line that waits
		50	add_batch: serves several lines that wait
		200	cancel_backorder: done
		1	cancel_backorder: error 22001
		1	cancel_backorder: error 22004
		1	cancel_backorder: error 22023
		100	cancel_backorder: no such line
		1	deallocate: holds end
		100	extend_hold: a line
		2	extend_hold: error 22001
		2	extend_hold: error 22004
		10	extend_hold: error 22023
		150	extend_hold: error SK005
		300	extend_hold: nothing
		5	extend_hold: several lines
		5	hold: a line that was shipped
		300	hold: by a later batch
		300	hold: by the first batch
		15	hold: error 22001
		15	hold: error 22004
		30	hold: error 22023
		2	hold: error 53400
		10	hold: error SK001
		200	hold: error SK003
		10	hold: holds end
		300	hold: out of stock
		200	hold: same line again
		200	change_batch_eta: another day
		2	change_batch_eta: error 22001
		1	change_batch_eta: error 22004
		1	change_batch_eta: error 22023
		50	change_batch_eta: error SK002
		200	change_batch_eta: it arrives
		100	change_batch_eta: no line
		50	change_batch_eta: one line
		200	change_batch_eta: same day
		200	change_batch_eta: several lines
		100	promise: a batch
		2	promise: error 22001
		2	promise: error 22004
		2	promise: error 22023
		5	promise: error SK001
		100	promise: out of stock
		20	purge_shipped: error 22004
		20	purge_shipped: nothing
		20	purge_shipped: something
		100	release: a line
		2	release: error 22001
		2	release: error 22004
		1	release: error 22023
		20	release: holds end
		300	release: nothing
		5	release: several lines
		100	ship: a line
		2	ship: an order of one line
		10	ship: an order of several lines
		2	ship: error 22001
		1	ship: error 22004
		1	ship: error 22023
		100	ship: nothing to ship
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
