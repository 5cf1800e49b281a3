# doc/examples: the mailer sends one mail for each line that is out of stock,
# whatever happens to the database, to the mail server and to itself; and the
# few lines for psql, Python and Node print what they hear.

use strict;
use warnings;
use utf8;

use File::Copy qw(copy);
use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node);
use IPC::Run qw(run start timer);
use JSON::PP;
use POSIX qw(WIFEXITED WEXITSTATUS);
use PostgreSQL::Test::Utils;
use Test::More;

my $examples = "$FindBin::RealBin/../../doc/examples";
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $sender = 'stock@made.example';
my $recipient = 'buyer@made.example';

# Nothing of the make that runs this is for the mailer's.
delete @ENV{qw(MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL)};

my $node = new_node('main', "shared_preload_libraries = 'alloc'\n");

sub sql { my ($sql) = @_; utf8::encode($sql); return $node->safe_psql('postgres', $sql); }

sub wait_until
{
	my ($sql, $what) = @_;
	$node->poll_query_until('postgres', $sql) or die "never came: $what";
	return;
}

# A line for which there is no stock; the event's id.  Quotes by psql's :''.
my $orders = 0;
sub out_of_stock
{
	my ($sku) = @_;
	my $order = 'order ' . ++$orders;
	my $quoted = $sku =~ s/'/''/gr;

	sql("SELECT alloc.add_batch('batch of ' || md5('$quoted'), '$quoted', 5); SELECT alloc.allocate('$order', '$quoted', 6)");
	return sql("SELECT event_id FROM alloc.events WHERE type = 'out_of_stock' AND orderid = '$order'");
}

# ---- the mail server ----

my $mailbox = "$dir/log/mailbox";
mkdir "$dir/log";
mkdir $mailbox or die "$mailbox: $!";
append_to_file("$mailbox/mails", '');
my ($sink, $sink_output);
# The same port each time; one that is given to no client meanwhile.
my $sink_port = PostgreSQL::Test::Cluster::get_free_port();

sub start_sink
{
	$sink_output = '';
	$sink = start([ '/usr/bin/python3', "$FindBin::RealBin/smtp_sink.py", $mailbox, $sink_port ],
		'>', \$sink_output, '2>>', "$dir/log/sink.log", timer($timeout));
	$sink->pump until $sink_output =~ /^$sink_port\n/;
	return;
}

sub stop_sink { $sink->signal('KILL'); $sink->finish; return; }
# Without a line that is just being written.
sub mails { return map { decode_json($_) } slurp_file("$mailbox/mails") =~ /^(.*)\n/mg; }
sub event_of { my ($mail) = @_; return $mail->{message_id} =~ /^<(\d+)\.\d+\@made\.example>$/ ? $1 : $mail->{message_id}; }
sub mails_of { my ($event) = @_; return grep { event_of($_) eq $event } mails(); }

sub wait_for_mail
{
	my ($event, $number) = (@_, 1);

	foreach (1 .. 20 * $timeout)
	{
		return if mails_of($event) >= $number;
		select(undef, undef, undef, 0.05);
	}
	die "no mail number $number for event $event";
}

# ---- the mailer ----

my $mailer;
my $mailer_path = "$dir/mailer/mailer";

sub build_mailer
{
	mkdir "$dir/mailer";
	copy("$examples/mailer/$_", "$dir/mailer/$_") or die "$_: $!" for qw(Makefile mailer.c);
	return run([ 'make', '-s', '-C', "$dir/mailer" ]);
}

sub start_one
{
	return start([ $mailer_path, $node->connstr('postgres') . ' application_name=mailer', "smtp://127.0.0.1:$sink_port",
			$sender, $recipient, @_ ], '>>', "$dir/log/mailer.log", '2>>', "$dir/log/mailer.log");
}

sub start_mailer { $mailer = start_one(); return; }
sub kill_mailer { $mailer->signal('KILL'); $mailer->finish; return; }
sub alive { return $mailer->pumpable; }
sub log_of_mailer { return slurp_file("$dir/log/mailer.log"); }
sub hold { append_to_file("$mailbox/hold", ''); return; }
sub go_on { unlink "$mailbox/hold"; return; }

sub wait_until_sent
{
	wait_until(q{SELECT count(*) = 0 FROM alloc.events e LEFT JOIN stock_mail m USING (event_id)
		WHERE e.type = 'out_of_stock' AND m.sent_at IS NULL}, 'a mail for each event');
	return;
}

ok(build_mailer(), 'the mailer is built by its Makefile, without a warning');
start_sink();
start_mailer();
wait_until(q{SELECT count(*) = 1 FROM alloc.consumers WHERE name = 'mailer'}, 'the consumer');

# ---- a mail ----

my $began = time;
my $event = out_of_stock('SMALL-LAMP');
wait_for_mail($event);
cmp_ok(time - $began, '<', 30, 'a mail goes out when the doorbell rings, not when a minute is over');
my ($mail) = mails();
is($mail->{subject}, 'Out of stock for SMALL-LAMP', 'its subject is the book\'s');
like($mail->{raw}, qr/^Subject: Out of stock for SMALL-LAMP\r?$/m, '... as it is');
is($mail->{from}, $sender, 'its sender');
is_deeply($mail->{to}, [$recipient], 'its recipient');
is($mail->{body}, "Out of stock for SMALL-LAMP\r\n\r\nOrder: order 1\r\nQuantity: 6\r\n", 'its body');
is_deeply($mail->{headers},
	[qw(Auto-Submitted Content-Transfer-Encoding Content-Type Date From MIME-Version Message-ID Subject To)],
	'its headers');
is($mail->{date}, sql(qq{SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS+00:00')
	FROM alloc.events WHERE event_id = $event}), 'its date is the event\'s');
is(scalar(mails()), 1, 'no mail for other events: the batch that was created');

# Names that could be taken for something else on the way.
my @names = (
	[ 'Unicode', 'Stühle & 椅子 🪑' ],
	[ 'quotes', q{it's a "<table>" \\ %s $(id) `id`} ],
	[ 'newlines and a header', "LAMP\r\nBcc: everybody\@made.example\r\n\r\nbody", 'LAMPBcc: everybody@made.examplebody' ],
	[ 'the end of a mail', "LAMP\r\n.\r\nQUIT\r\n", 'LAMP.QUIT' ],
	[ 'control characters', "a\x{1}b\x{1b}c\x{7f}d\x{85}e\x{9f}f\x{a0}g\th", "abcdef\x{a0}gh" ],
	[ 'an encoded word', '=?UTF-8?B?TEFNUA==?=' ],
	[ 'a long name', 'x' x 255 ],
	[ 'a long name in Unicode', 'ü' x 127 ],
	[ 'long in four bytes', '🪑' x 63 ],
	[ 'blanks', '  two   three ü  ' ]);

foreach my $name (@names)
{
	my ($what, $sku, $subject) = @$name;
	my $id = out_of_stock($sku);

	wait_for_mail($id);
	my ($got) = mails_of($id);
	is($got->{subject}, 'Out of stock for ' . ($subject // $sku), "$what: the subject");
	like($got->{body}, qr/\AOut of stock for \Q$sku\E\r\n\r\nOrder: order \d+\r\nQuantity: 6\r\n\z/, "$what: the body");
	is_deeply([ $got->{to}, $got->{headers}, $got->{defects} ], [ [$recipient], $mail->{headers}, [] ],
		"$what: recipients and headers are the usual ones, and sound");
	cmp_ok($got->{longest}, '<=', $what eq 'a long name' ? 998 : 76, "$what: the lines are short enough");
}

# ---- the database goes away ----

foreach my $mode (qw(fast immediate))
{
	$node->stop($mode);
	$node->start;
	wait_for_mail(out_of_stock("after a stop, $mode"));
	ok(alive(), "$mode stop of the server: the same mailer goes on");
}

# The mail is at the mail server, its row is not yet marked.
hold();
$event = out_of_stock('restart in between');
wait_for_mail($event);
$node->restart;
go_on();
wait_until_sent();
ok(alive(), 'restart while a mail is on its way: the same mailer goes on');
is(scalar(mails_of($event)), 1, '... and does not send it again');

sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mailer'});
wait_for_mail(out_of_stock('after its session was ended'));
ok(alive(), 'its session is ended: the same mailer goes on');

# ---- the mailer goes away ----

kill_mailer();
my @events = map { out_of_stock("nobody there $_") } 1 .. 3;
start_mailer();
wait_for_mail($_) for @events;
wait_until_sent();
is(scalar(map { mails_of($_) } @events), 3, 'killed, and started again: what happened meanwhile is sent');

# The gap that SMTP leaves.
hold();
$event = out_of_stock('killed in between');
wait_for_mail($event);
kill_mailer();
go_on();
start_mailer();
wait_for_mail($event, 2);
wait_until_sent();
my @copies = mails_of($event);
is(scalar(@copies), 2, 'killed between the mail and its mark: it is sent again');
is($copies[0]{raw}, $copies[1]{raw}, '... the same to the byte, so its Message-ID tells');

# ---- the mail server goes away ----

stop_sink();
@events = map { out_of_stock("no mail server $_") } 1 .. 3;
wait_until(q{SELECT count(*) = 3 FROM stock_mail WHERE sent_at IS NULL}, 'the record of three mails');
wait_for_complaint(qr/event $events[0]: .*connect/);
ok(alive(), 'no mail server: the mailer goes on');
kill_mailer();
start_mailer();
start_sink();
wait_until_sent();
is(join(' ', map { scalar(mails_of($_)) } @events), '1 1 1',
	'the mailer is killed, the mail server comes back: each mail is sent');

sub wait_for_complaint
{
	my ($complaint) = @_;

	foreach (1 .. 20 * $timeout)
	{
		return if log_of_mailer() =~ $complaint;
		select(undef, undef, undef, 0.05);
	}
	die "the mailer does not say $complaint";
}

# A mail that is refused does not keep the others.
append_to_file("$mailbox/refuse", 'unwelcome');
my $refused = out_of_stock('unwelcome');
wait_for_mail(out_of_stock('the next one'));
is(sql("SELECT refused, refusal ~ '554', sent_at IS NULL, try_after > now() FROM stock_mail WHERE event_id = $refused"),
	'1|t|t|t', 'a mail that is refused is kept, and tried later');
unlink "$mailbox/refuse";
sql("UPDATE stock_mail SET try_after = now() WHERE event_id = $refused; NOTIFY alloc_events");
wait_for_mail($refused);
wait_until_sent();
is(scalar(mails_of($refused)), 1, '... then sent once');

# Who begins anew from the beginning of the log does not send it all again.
kill_mailer();
my $before = mails();
sql(q{SELECT alloc.drop_consumer('mailer'), alloc.create_consumer('mailer', 'beginning')});
start_mailer();
wait_for_mail(out_of_stock('after the beginning'));
wait_until_sent();
is(scalar(mails()), $before + 1, 'a consumer that begins anew: what is recorded as sent is not sent again');

# ---- all of it, with work going on ----

# What is recorded as sent, with how many mails there were then.
my @marked;
sub note_marked
{
	my @sent = split(/\n/, sql('SELECT event_id FROM stock_mail WHERE sent_at IS NOT NULL'));
	push @marked, { sent => { map { $_ => 1 } @sent }, mails => scalar(mails()) };
	return;
}

sql(q{SELECT alloc.add_batch('none', 'NONE', 0)});
my $kills = 0;
foreach my $round (1 .. 6)
{
	my $first = scalar(mails());

	sql(qq{SELECT count(alloc.allocate('round $round.' || n, 'NONE', n)) FROM generate_series(1, 40) n});
	# In the middle of it.
	foreach (1 .. 20 * $timeout)
	{
		last if mails() >= $first + 5 * $round;
		select(undef, undef, undef, 0.01);
	}
	if ($round % 3 == 0)
	{
		$node->restart;
	}
	elsif ($round % 3 == 1)
	{
		kill_mailer();
		$kills++;
		note_marked();
		start_mailer();
	}
	else
	{
		stop_sink();
		start_sink();
		$kills++;
	}
	note_marked();
}
wait_until_sent();

my %mails_of_event;
$mails_of_event{ event_of($_) }++ for mails();
my @wanted = split(/\n/, sql(q{SELECT event_id FROM alloc.events WHERE type = 'out_of_stock' ORDER BY 1}));
is_deeply([ sort { $a <=> $b } keys %mails_of_event ], \@wanted, 'kills and restarts: a mail for each event, and no other');
my $repeated = grep { $_ > 1 } values %mails_of_event;
cmp_ok($repeated, '<=', $kills + 1, '... not more repeated than mails were in between');
my $again = 0;
my @all = mails();
foreach my $moment (@marked)
{
	$again += grep { $moment->{sent}{ event_of($_) } } @all[ $moment->{mails} .. $#all ];
}
is($again, 0, '... and none of those that were recorded as sent');

# A second one takes what the first one leaves.
my $second = start_one();
wait_until(q{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'mailer' AND query = 'COMMIT'}, 'two mailers');
$before = mails();
sql(q{SELECT count(alloc.allocate('two ' || n, 'NONE', n)) FROM generate_series(1, 40) n});
wait_until_sent();
is(scalar(mails()), $before + 40, 'two mailers for one consumer: one mail each');

# Another consumer has rows of its own.
my $other = start_one('other');
wait_until(q{SELECT count(*) = 1 FROM alloc.consumers WHERE name = 'other'}, 'the other consumer');
$event = out_of_stock('for two');
wait_for_mail($event, 2);
pass('two consumers: each has its mail');

foreach my $one ([ 'TERM', $mailer ], [ 'INT', $second ], [ 'TERM', $other ])
{
	my ($signal, $handle) = @$one;
	$handle->signal($signal);
	$handle->finish;
	ok(WIFEXITED($handle->full_result) && WEXITSTATUS($handle->full_result) == 0, "SIG$signal ends it without an error");
}
stop_sink();

foreach my $address ("a\@b.example\r\nDATA", 'nobody', 'a@b.example> <c@d.example')
{
	my $errors = '';
	run([ $mailer_path, $node->connstr('postgres'), 'smtp://127.0.0.1', $sender, $address ], '2>', \$errors);
	like($errors, qr/not an address/, 'what is not an address is refused');
}

# ---- the listeners ----

sub environment
{
	my %extra = (PGHOST => $node->host, PGPORT => $node->port, PGUSER => scalar(getpwuid($<)),
		PGDATABASE => 'postgres', PGCLIENTENCODING => 'UTF8');
	return %extra;
}

# Runs a listener, lets a transaction happen, and returns what was printed
# up to the doorbell.
sub listened
{
	my ($name, @command) = @_;
	my ($output, $errors) = ('', '');
	local %ENV = (%ENV, environment());
	my $listener = start(\@command, '>', \$output, '2>', \$errors, timer($timeout));

	eval {
		$listener->pump until $output =~ /^listening$/m;
		sql(qq{BEGIN;
SELECT alloc.add_batch('batch for $name', 'Stuhl "ü" for $name\nx', 5);
SELECT alloc.allocate('$name 1', 'Stuhl "ü" for $name\nx', 5);
SELECT alloc.allocate('$name 2', 'Stuhl "ü" for $name\nx', 6);
COMMIT});
		$listener->pump until $output =~ /alloc_events.*\n/;
		1;
	} or diag("$name: $@ $errors");
	return ($listener, $output);
}

sub check_listener
{
	my ($name, $output) = @_;
	my %id = map { split(/ /) } split(/\n/,
		sql("SELECT type || ' ' || event_id FROM alloc.events WHERE sku LIKE '%for $name%'") =~ s/\|/ /gr);
	utf8::decode($output);
	my @heard = $output =~ /(alloc_\w+)"?(?: with payload)? "?(\{.*\}|\d+)/g;

	is(scalar(@heard), 6, "$name prints three notifications") or diag($output);
	is_deeply([ @heard[ 0, 2, 4 ] ], [qw(alloc_allocated alloc_out_of_stock alloc_events)], "$name: the channels");
	foreach my $n (1, 3)
	{
		my $type = $n == 1 ? 'allocated' : 'out_of_stock';
		my $payload = eval { JSON::PP->new->decode($heard[$n] // '{}') } // {};
		is_deeply([ @$payload{qw(event_id type sku)} ],
			[ $id{$type}, $type, qq{Stuhl "ü" for $name\nx} ], "$name: the event $type");
	}
	is($heard[5], $id{out_of_stock}, "$name: the doorbell");
	return;
}

sub ends { my ($listener) = @_; return eval { $listener->finish } ? 1 : 0; }

my ($listener, $output) = listened('psql', 'psql', '-X', '-v', 'seconds=600', '-f', "$examples/listen.sql");
check_listener('psql', $output);
$listener->signal('TERM');
ends($listener);
{
	local %ENV = (%ENV, environment());
	is(scalar(run([ 'psql', '-X', '-v', 'seconds=1', '-f', "$examples/listen.sql" ], '>', '/dev/null')), 1,
		'psql ends when it was told');
}

($listener, $output) = listened('Python', '/usr/bin/python3', "$examples/listen.py", '', 3);
check_listener('Python', $output);
is(ends($listener), 1, 'Python ends when it was told');

# The library that listen.mjs imports: from npm, in the version that is written
# down; where npm or its registry is out of reach, Debian's package.
sub has_pg
{
	my $debian = '/usr/share/nodejs';
	my $output = '';
	local $ENV{HOME} = "$dir/node";
	# Dies when it takes too long, or there is no npm.
	my $installed = eval {
		run([ 'npm', 'ci', '--prefix', "$dir/node", '--ignore-scripts', '--no-audit',
				'--no-fund', '--no-update-notifier', '--fetch-retries', '0' ],
			'>&', \$output, timer(60));
	};

	return 1 if $installed;
	diag("npm cannot install pg, Debian's is taken: $output");
	system('rm', '-rf', "$dir/node/node_modules");
	$ENV{NODE_PATH} = $debian;
	return -d "$debian/pg" && symlink $debian, "$dir/node/node_modules";
}

mkdir "$dir/node";
copy("$examples/$_", "$dir/node/$_") or die "$_: $!"
	for qw(package.json package-lock.json .npmrc listen.mjs);
unlike(slurp_file("$examples/package-lock.json"), qr/"resolved"/, 'no registry is written down');
ok(has_pg(), 'there is pg, from npm or from Debian');
($listener, $output) = listened('Node', 'node', "$dir/node/listen.mjs", 3);
check_listener('Node', $output);
is(ends($listener), 1, 'Node ends when it was told');

# ---- the listener of a fleet ----

# Two partitions and a router, databases of the same server.
my @fleet = map { my $name = $_; sql("CREATE DATABASE $name"); $node->connstr($name) } qw(part0 part1 router);
$node->safe_psql($_, 'CREATE EXTENSION alloc') for qw(part0 part1);
$node->safe_psql('router', "CREATE EXTENSION plproxy; CREATE EXTENSION alloc;
	SELECT alloc.create_router('fleet', ARRAY[\$\$$fleet[0]\$\$, \$\$$fleet[1]\$\$])");
# Runs it while something is done; what it printed, once it has ended.
sub heard_of_fleet
{
	my ($count, $during) = @_;
	my ($output, $errors) = ('', '');
	my $listener = start([ '/usr/bin/python3', "$examples/listen_fleet.py", 'screen', $count, @fleet[ 2, 0, 1 ] ],
		'>', \$output, '2>', \$errors, timer($timeout));

	$listener->pump until $output =~ /^listening$/m || !$listener->pumpable;
	$node->safe_psql('router', $during) if $during ne '';
	is(ends($listener), 1, 'the listener of a fleet ends when it was told') or diag($errors);
	return join("\n", sort(split(/\n/, $output)));
}

is(heard_of_fleet(6, <<'DURING'), <<'HEARD' =~ s/\n\z//r, 'it has heard each event of both partitions once');
SELECT alloc.add_batch('b' || n, 'SKU-' || n, 5) FROM generate_series(1, 4) AS n;
SELECT alloc.allocate('o1', 'SKU-1', 2);
SELECT alloc.allocate('o1', 'SKU-1', 2);
SELECT alloc.allocate('o2', 'SKU-2', 9);
DURING
allocated SKU-1 o1 2
batch_created SKU-1 None 5
batch_created SKU-2 None 5
batch_created SKU-3 None 5
batch_created SKU-4 None 5
listening
out_of_stock SKU-2 o2 9
HEARD
$node->safe_psql('router', "SELECT alloc.deallocate('o1', 'SKU-1')");
is(heard_of_fleet(1, ''), "deallocated SKU-1 o1 2\nlistening", 'with what came when it was away');

done_testing();
