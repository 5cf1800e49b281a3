#!/usr/bin/env perl
# The demo's numbers, computed once more from Northwind's files by a few lines
# of Perl that know nothing of the extension; and that the demo fails when the
# numbers do not agree.  Prints TAP; run it within test/with-server.
use strict;
use warnings;
use File::Temp qw(tempdir);
use Test::More;
use Time::Local qw(timegm);

my $data = 'doc/demo/northwind';
my @arrivals = qw(1998-05-11 1998-05-18 1998-05-25);

# ---- what must come out ----

sub rows_of
{
	my ($path) = @_;
	open my $file, '<', $path or die "$path: $!";
	my @rows = map { chomp; [ split /,/ ] } <$file>;
	shift @rows;
	return @rows;
}

sub sum
{
	my $sum = 0;
	$sum += $_ for @_;
	return $sum;
}

# Of each product its batches, the one in the warehouse first.
sub batches_of_products
{
	my %batches;
	my $number = 0;
	for my $product (rows_of("$data/products.csv"))
	{
		my ($sku, undef, $stock, $order) = @$product;
		$number++;
		$batches{$sku} =
		  [ { ref => "stock-$sku", qty => $stock, left => $stock, lines => [] } ];
		push @{ $batches{$sku} },
		  { ref => "ship-$sku", qty => $order, left => $order, lines => [],
			eta => $arrivals[ ($number - 1) % 3 ] }
		  if $order > 0;
	}
	return %batches;
}

sub place
{
	my ($line, $batches) = @_;
	for my $batch (@$batches)
	{
		next if $batch->{left} < $line->{qty};
		$batch->{left} -= $line->{qty};
		push @{ $batch->{lines} }, $line;
		return $line->{batch} = $batch;
	}
	return $line->{batch} = undef;
}

# Takes the newest lines off until the others fit, and places them again.
sub cut
{
	my ($batch, $qty, $batches) = @_;
	my @leaving;
	$batch->{left} -= $batch->{qty} - $qty;
	$batch->{qty} = $qty;
	while ($batch->{left} < 0)
	{
		unshift @leaving, pop @{ $batch->{lines} };
		$batch->{left} += $leaving[0]{qty};
	}
	place($_, $batches) for @leaving;
	return grep { !$_->{batch} || $_->{batch} != $batch } @leaving;
}

my %batches = batches_of_products();
my @batches = map { @$_ } values %batches;
my $position = 0;
my @lines =
  sort { $a->{date} cmp $b->{date} || $a->{orderid} cmp $b->{orderid}
	  || $a->{position} <=> $b->{position} }
  map { { orderid => $_->[0], sku => $_->[1], qty => $_->[2], date => $_->[3],
		  required => $_->[4],
		  position => $position++ } } rows_of("$data/order_lines.csv");
place($_, $batches{ $_->{sku} }) for @lines;

# ---- what the demo prints ----

my $tree = tempdir(CLEANUP => 1);

# Runs a demo in a new database; returns its exit status and what it printed.
sub run_demo
{
	my ($database, $demo) = @_;
	system('createdb', $database) == 0 or die "createdb $database failed";
	return run_again($database, $demo);
}

sub run_again
{
	local $ENV{PGDATABASE} = shift;
	my ($demo) = @_;
	my $output = `$demo 2>&1 </dev/null`;
	return ($? >> 8, $output);
}

# A copy of the demo in which one of its files ends with another statement.
sub changed_demo
{
	my ($name, $file, $sql) = @_;
	system("mkdir $tree/$name && cp -r doc $tree/$name") == 0 or die 'cp failed';
	open my $out, '>>', "$tree/$name/doc/demo/$file" or die "$file: $!";
	print $out "$sql\n";
	close $out or die "$file: $!";
	return "$tree/$name/doc/demo/run";
}

# The rows of a table that psql printed, as lines of cells joined by "|".
sub table
{
	my ($output, $title) = @_;
	my ($table) = $output =~ /^ *\Q$title\E *\n.*\n[-+]+\n((?:.+\n)*)/m;
	return [] unless defined $table;
	return [ map { join '|', map { s/^ +| +$//gr } split /\|/, $_, -1 }
		  split /\n/, $table ];
}

sub query
{
	my ($database, $sql) = @_;
	open my $psql, '-|', 'psql', '-XAtq', '-d', $database, '-c', $sql or die "psql: $!";
	my @rows = map { chomp; $_ } <$psql>;
	close $psql or die "psql failed: $sql";
	return \@rows;
}

sub placed_lines
{
	return [ sort map { "$_->{orderid}|$_->{sku}|$_->{qty}|$_->{batch}{ref}" }
		  grep { $_->{batch} } @lines ];
}

my ($status, $output) = run_demo('demo', 'doc/demo/run');
is($status, 0, 'the demo succeeds') or diag($output);

is_deeply(table($output, 'Batches: one for what is in the warehouse, one for what is on a ship'),
	[ map {
			my $eta = $_;
			my @of = grep { ($_->{eta} // '') eq $eta } @batches;
			join '|', $eta ? "arrives $eta" : 'in the warehouse',
			  scalar @of, sum(map { $_->{qty} } @of)
	} '', @arrivals ],
	'batches and units by day of arrival');

my %orders;
push @{ $orders{ $_->{orderid} } }, $_ for @lines;

is_deeply(table($output, 'What was ordered'),
	[ join '|', scalar(keys %orders), scalar(@lines), sum(map { $_->{qty} } @lines),
		$lines[0]{date}, $lines[-1]{date} ],
	'orders, lines, units');
is(scalar(@lines), 2155, 'there are 2,155 lines');

my @progress;
for my $tenth (1 .. 10)
{
	my $done = int(($tenth * @lines + 9) / 10);
	my $served = grep { $_->{batch} } @lines[ 0 .. $done - 1 ];
	push @progress, sprintf('%d %% %d %d %d', 10 * $tenth, $done, $served, $done - $served);
}
is_deeply(
	[ map { /^ *(\d+) % +\d+\.\d\d s +(\d+) lines: +(\d+) served, +(\d+) out of stock$/
		  ? "$1 % $2 $3 $4" : () } split /\n/, $output ],
	\@progress, 'progress at each tenth');
like($output, qr{^[1-9]\d* lines/s, }m, 'lines per second');

my %served = (full => 0, part => 0, none => 0);
for my $order (values %orders)
{
	my $answered = grep { $_->{batch} } @$order;
	$served{ $answered == @$order ? 'full' : $answered ? 'part' : 'none' }++;
}
is_deeply(table($output, 'Orders'),
	[ join '|', @served{qw(full part none)}, scalar keys %orders ],
	'orders fully, partly, not served');

my %by_answer;
push @{ $by_answer{ !$_->{batch} ? 'out of stock'
		: $_->{batch}{eta} ? 'promised from a ship' : 'served from the warehouse' } },
  $_->{qty} for @lines;
is_deeply(table($output, 'Lines'),
	[ map { join '|', $_, scalar @{ $by_answer{$_} }, sum(@{ $by_answer{$_} }) }
		'served from the warehouse', 'promised from a ship', 'out of stock' ],
	'lines and units by answer');

my %short;
for my $line (@lines)
{
	my $product = $short{ $line->{sku} } //=
	  { sku => $line->{sku}, ordered => 0, served => 0, lines => 0 };
	$product->{ordered} += $line->{qty};
	$product->{served} += $line->{qty} if $line->{batch};
	$product->{lines}++ unless $line->{batch};
}
$_->{short} = $_->{ordered} - $_->{served} for values %short;
my @short = sort { $b->{short} <=> $a->{short} || $a->{sku} cmp $b->{sku} } values %short;
is_deeply(table($output, 'The ten products most short of stock'),
	[ map { join '|', @$_{qw(sku ordered served short lines)} } @short[ 0 .. 9 ] ],
	'the ten products most short of stock');

is_deeply(table($output, 'What is promised from which ship'),
	[ map { join '|', @$_{qw(ref eta)}, scalar @{ $_->{lines} },
			$_->{qty} - $_->{left}, $_->{left} }
		sort { $a->{eta} cmp $b->{eta} || $a->{ref} cmp $b->{ref} }
		grep { $_->{eta} } @batches ],
	'what is promised from which ship');

my @first_order = grep { $_->{orderid} eq $lines[0]{orderid} } @lines;
my ($first_without) = grep { !$_->{batch} } @lines;
my $id = @batches;
my @heard = map {
	[ 'alloc_allocated', sprintf
		'{"event_id": %d, "type": "allocated", "at": AT, "orderid": "%s", "sku": "%s", "qty": %d, "batchref": "%s"}',
		++$id, @$_{qw(orderid sku qty)}, $_->{batch}{ref} ]
} @first_order;
push @heard, [ 'alloc_events', $id ];
my ($before) = grep { $lines[$_] == $first_without } 0 .. $#lines;
push @heard, [ 'alloc_out_of_stock', sprintf
	'{"event_id": %d, "type": "out_of_stock", "at": AT, "orderid": "%s", "sku": "%s", "qty": %d}',
	@batches + $before + 1, @$first_without{qw(orderid sku qty)} ];
my @shown;
while ($output =~ /^\d+\. (alloc_\w+)\n((?:    ?\S.*\n)+)/mg)
{
	my ($channel, $payload) = ($1, $2);
	$payload =~ s/\n +/ /g;
	$payload =~ s/^ +|\n//g;
	$payload =~ s/"at": "\d{4}-\d\d-\d\dT[^"]*\+00:00"/"at": AT/;
	push @shown, [ $channel, $payload ];
}
is_deeply(\@shown, \@heard, 'the first events, and the first out_of_stock, as JSON')
  or diag(explain(\@shown));

my ($shrunk, $to) =
  $output =~ /change_batch_quantity\('([^']+)', (\d+)\)/ or die 'no cut in the output';
my ($batch) = grep { $_->{ref} eq $shrunk } @batches;
my $of_sku = (grep { $_->[0] == $batch } values %batches)[0];
my $old_qty = $batch->{qty};

sub batch_table
{
	return [ map { join '|', $_->{ref}, $_->{eta} // '', $_->{qty},
			$_->{qty} - $_->{left}, $_->{left} } @$of_sku ];
}

is_deeply(table($output, 'The product before'), batch_table(), 'the product before the cut');
my @moved = cut($batch, $to, $of_sku);
is_deeply(table($output, 'The product after'), batch_table(), 'the product after the cut');
is_deeply(table($output, "SELECT * FROM alloc.change_batch_quantity('$shrunk', $to)"),
	[ map { join '|', @$_{qw(orderid sku qty)}, $shrunk,
			$_->{batch} ? $_->{batch}{ref} : '(out of stock)' } @moved ],
	'the lines that the cut moved');
ok((grep { $_->{batch} } @moved), 'one of them to another batch');
ok((grep { !$_->{batch} } @moved), 'one of them to none');
is_deeply(table($output, 'What the listener heard of it'),
	[
		(map { "alloc_deallocated|$_->{orderid}|$_->{qty}||$shrunk" } reverse @moved),
		"alloc_batch_quantity_changed||$to|$old_qty|$shrunk",
		(map { my $line = $_;
			$_->{batch}
				? "alloc_allocated|$_->{orderid}|$_->{qty}||$_->{batch}{ref}"
				: map({ "$_|$line->{orderid}|$line->{qty}||" }
					'alloc_out_of_stock', 'alloc_backordered') } @moved)
	],
	'the events of the cut');

# ---- a late ship ----

# A row for each order that a ship serves after its day, the last day first.
sub late_orders
{
	my %late;
	for my $line (grep { $_->{batch} && $_->{batch}{eta} } @lines)
	{
		next unless $line->{batch}{eta} gt $line->{required};
		my $order = $late{ $line->{orderid} } //=
		  { orderid => $line->{orderid}, lines => 0, required => $line->{required}, eta => '' };
		$order->{lines}++;
		$order->{eta} = $line->{batch}{eta} if $line->{batch}{eta} gt $order->{eta};
	}
	$_->{days} = day_number($_->{eta}) - day_number($_->{required}) for values %late;
	return map { join '|', @$_{qw(orderid lines required eta days)} }
	  sort { $b->{required} cmp $a->{required} || $a->{orderid} cmp $b->{orderid} } values %late;
}

sub day_number
{
	my ($year, $month, $day) = split /-/, shift;
	return timegm(0, 0, 0, $day, $month - 1, $year) / 86400;
}

my @late = late_orders();
is_deeply(table($output,
		'Orders that miss their day, the last required first: 10 of ' . scalar @late),
	[ @late[ 0 .. 9 ] ], 'the orders that miss their day');

my ($ship_ref, $new_eta) =
  $output =~ /change_batch_eta\('([^']+)', '([^']+)'\)/ or die 'no late ship in the output';
my ($ship) = grep { $_->{ref} eq $ship_ref } @batches;
my $old_eta = $ship->{eta};
my @promised = @{ $ship->{lines} };
$ship->{eta} = $new_eta;
is_deeply(table($output, "SELECT * FROM alloc.change_batch_eta('$ship_ref', '$new_eta')"),
	[ map { join '|', @$_{qw(orderid sku qty)}, $old_eta, $new_eta } @promised ],
	'the lines of the late ship, the oldest first');

my %missed_before = map { /^(\d+)/ => 1 } @late;
my @missed_now = grep { /^(\d+)/ && !$missed_before{$1} } late_orders();
ok(@missed_now > 0, 'an order misses its day by the late ship');
is_deeply(table($output, 'Orders that miss their day now, and did not before'), \@missed_now,
	'the orders that miss their day by the late ship');
is_deeply(table($output, 'What the listener heard of the late ship'),
	[ "alloc_batch_eta_changed||$old_eta|$new_eta|$ship_ref",
		map { "alloc_promise_changed|$_->{orderid}|$old_eta|$new_eta|$ship_ref" } @promised ],
	'the events of the late ship');

# ---- an order that waits ----

my @invented = map { { orderid => '11078', sku => $_->[0], qty => $_->[1] } }
  [ 'SCHOGGI-SCHOKOLADE', 6 ], [ 'MAXILAKU', 3 ], [ 'ANISEED-SYRUP', 10 ];
place($_, $batches{ $_->{sku} }) for @invented;
ok(!(grep { $_->{orderid} eq '11078' } @lines), 'the invented order is not in the files');
is_deeply(table($output, "SELECT * FROM alloc.allocate_order('11078', ..., 'backorder')"),
	[ map { join '|', @$_{qw(sku qty)},
			$_->{batch} ? ($_->{batch}{ref}, 'allocated') : ('', 'backordered') } @invented ],
	'the answers to the invented order');

my @waiting = grep { !$_->{batch} } @moved, @invented;
is(scalar(grep { !$_->{batch} } @invented), 1, 'one of its lines waits');
my $place = 0;
is_deeply(table($output, 'Who waits for Aniseed Syrup, in the order in which they will be served'),
	[ map { join '|', ++$place, @$_{qw(orderid sku qty)} } @waiting ],
	'the queue');
push @lines, @invented;

my $served_lines = grep { $_->{batch} } @lines;
my $events = @batches + @lines + 2 * @moved + 1 + @promised + 1 + @waiting;
is((split /\n/, $output)[-1],
	sprintf('Verified: %d batches add up; %d served + %d out of stock + %d waiting = %d; %d events heard.',
		scalar @batches, $served_lines, @lines - $served_lines - @waiting, scalar @waiting,
		scalar @lines, $events),
	'the last line says that the numbers agree');

is_deeply(query('demo', 'SELECT orderid, sku, qty, batchref FROM alloc.allocations
		ORDER BY concat_ws(\'|\', orderid, sku, qty, batchref) COLLATE "C"'),
	placed_lines(), 'each line has the batch that it must have');
is((grep { length > 100 } split /\n/, $output), 0, 'no line of output is longer than 100 bytes')
  or diag(grep { length > 100 } split /^/, $output);

# ---- when something is wrong ----

($status, $output) = run_again('demo', 'doc/demo/run');
isnt($status, 0, 'a database that has the extension is refused');
is_deeply(query('demo', 'SELECT count(*) FROM alloc.events'), [$events], 'and left alone');

# Units from nowhere, a day that nobody promised, a line that waits no more, an
# event that nobody was told, SQL that is wrong.
my @faults = (
	[ 'stock', 'cut.sql', 'UPDATE alloc.slot SET available = available + 1 WHERE batch_id = 1;',
		qr/^NOT SOUND: batches \{"all":94,"sound":93\}, lines \{"all":2158,"sound":2158,/m ],
	[ 'day', 'wait.sql', "UPDATE alloc.batch SET eta = eta + 1 WHERE ref = 'ship-MAXILAKU';",
		qr/^NOT SOUND: .*, lines \{"all":2158,"sound":2155,/m ],
	[ 'queue', 'wait.sql', "DELETE FROM alloc.backorder WHERE orderid = '11078';",
		qr/^NOT SOUND: .*, lines \{"all":2158,"sound":2157,/m ],
	[ 'unheard', 'wait.sql', "SET alloc.notify = off; SELECT alloc.add_batch('unheard', 'CHAI', 1);",
		qr/^NOT SOUND: .*, events \{"logged":2264,"heard":2263,"sound":2263\}$/m ],
	[ 'sql', 'allocate.sql', 'SELECT no_such_column FROM alloc.batches;',
		qr/column "no_such_column" does not exist/ ]);
for my $fault (@faults)
{
	my ($name, $file, $sql, $message) = @$fault;
	my ($failed, $printed) = run_demo("demo_$name", changed_demo($name, $file, $sql));
	isnt($failed, 0, "the demo fails: $name");
	like($printed, $message, 'and says why');
}

done_testing();
