# shellcheck shell=bash
# A fleet for the demo and the benchmarks: more servers beside that of
# with-server, partitions on them, and a router.  Sourced within with-server,
# which ends what is started here.

# start_server NAME [SETTING...]: a server of its own below TMPDIR; prints its
# port.  Its files go when those of with-server go.
start_server() {
	local dir=$TMPDIR/$1 port setting
	port=$((PGPORT + 1 + $(find "$TMPDIR" -maxdepth 2 -name postmaster.pid | wc -l)))
	shift
	initdb -D "$dir" -U "$PGUSER" -A trust -N -E UTF8 --locale=C.UTF-8 >"$dir.initdb" 2>&1 ||
		{ cat "$dir.initdb" >&2; return 1; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PGHOST'"
		echo "port = $port"
		for setting in "$@"; do
			echo "${setting%%=*} = '${setting#*=}'"
		done
	} >>"$dir/postgresql.conf"
	env -u PGPORT pg_ctl -D "$dir" -l "$dir.log" -w -s start >/dev/null ||
		{ cat "$dir.log" >&2; return 1; }
	echo "$port"
}

# create_partition PORT DATABASE: prints how a router reaches it.
create_partition() {
	psql -Xq -v ON_ERROR_STOP=1 -p "$1" -c "CREATE DATABASE $2"
	psql -Xq -v ON_ERROR_STOP=1 -p "$1" -d "$2" -c 'CREATE EXTENSION alloc'
	echo "host=$PGHOST port=$1 dbname=$2"
}

# create_router DATABASE CONNECTION...: in the server of with-server.
create_router() {
	local database=$1 list
	shift
	list=$(printf ", '%s'" "$@")
	psql -Xq -v ON_ERROR_STOP=1 -c "CREATE DATABASE $database"
	psql -XqAt -v ON_ERROR_STOP=1 -d "$database" -c 'CREATE EXTENSION plproxy' \
		-c 'CREATE EXTENSION alloc' \
		-c "SELECT alloc.create_router('fleet', ARRAY[${list#, }])" >/dev/null
}
