#!/usr/bin/env perl
# The README's examples: each does what it shows, in the order in which they
# stand.  Prints TAP; run it within test/with-server.
#
#   ```sql   is given to psql, one session for all of them; the ```text that
#            follows is what it prints, or it prints nothing
#   ```sh    is run, but for make, whose targets must exist
#
# What changes from run to run is put the same on both sides: blanks at the end
# of lines, process ids and the moments in notifications.  The tables of
# reference are compared with the catalog.
#
# README_UPDATE=FILE writes the README there, with the output as it was.
use strict;
use warnings;
use IPC::Open2;
use Test::More;

my $database = 'shop';
my $readme = slurp('README.md');
my %target = targets('Makefile');

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or die "$path: $!";
	local $/ = undef;
	return scalar <$file>;
}

# ---- the examples ----

# Each with the line at which it begins, its language and text; the output
# that follows belongs to it.
sub examples
{
	my @examples;
	while ($readme =~ /^```(\w*)\n(.*?)^```$/msg)
	{
		my ($language, $text, $start) = ($1, $2, $-[0]);
		my $line = 1 + substr($readme, 0, $start) =~ tr/\n//;
		if ($language ne 'text')
		{
			push @examples, { line => $line, language => $language, text => $text };
			next;
		}
		die "line $line: output of nothing"
		  if !@examples || $examples[-1]{language} ne 'sql' || defined $examples[-1]{output};
		$examples[-1]{output} = $text;
	}
	return @examples;
}

# What a Makefile says that it can make.
sub targets
{
	my $makefile = slurp(shift);
	my %can;
	while ($makefile =~ /^([^\t#:=]+):([^=].*)?$/mg)
	{
		my $names = $1 eq '.PHONY' ? $2 : $1;
		$can{$_} = 1 for split ' ', $names;
	}
	return %can;
}

sub without_blanks
{
	my ($text) = @_;
	return $text =~ s/[ \t]+$//mgr =~ s/\n+\z/\n/r;
}

sub normalise
{
	my $text = without_blanks(@_);
	$text =~ s/(?<=received from server process with PID )\d+/N/g;
	$text =~ s/(?<="at": ")\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00(?=")/MOMENT/g;
	return $text;
}

my ($from_psql, $to_psql);

# psql as a user has it at a terminal, but quiet.
sub start_psql
{
	open2($from_psql, $to_psql, "exec psql -Xq -P pager=off -d $database 2>&1");
}

sub run_sql
{
	my ($sql) = @_;
	my $mark = 'the end of the example';
	my $output = '';
	start_psql() unless defined $to_psql;
	# By \warn, because psql does not hold back what it writes to stderr.
	print $to_psql "$sql\\warn '$mark'\n";
	$to_psql->flush;
	while (my $line = <$from_psql>)
	{
		return $output if $line eq "$mark\n";
		$output .= $line;
	}
	die "psql ended:\n$output";
}

sub check_sql
{
	my ($example) = @_;
	my $output = run_sql($example->{text});
	my ($first_line) = $example->{text} =~ /^(.*)$/m;
	$example->{now} = without_blanks($output);
	is(normalise($output), normalise($example->{output} // ''), "line $example->{line}: $first_line");
}

sub check_sh
{
	my ($example) = @_;
	for my $command (split /\n/, $example->{text})
	{
		if ($command =~ /^(?:sudo )?make\b(.*)/)
		{
			my @unknown = grep { !/=/ && !$target{$_} } split ' ', $1;
			is("@unknown", '', "line $example->{line}: $command: has its rules");
		}
		else
		{
			my $output = `{ $command; } 2>&1 </dev/null`;
			is($?, 0, "line $example->{line}: $command") or diag($output);
		}
	}
}

my @examples = examples();
for my $example (@examples)
{
	my $check = { sql => \&check_sql, sh => \&check_sh }->{ $example->{language} }
	  or die "line $example->{line}: in no language that is checked here";
	$check->($example);
}

# ---- the copy that the README makes ----

sub query
{
	my ($of, $sql) = @_;
	open my $psql, '-|', 'psql', '-XAtq', '-d', $of, '-c', $sql or die "psql: $!";
	my @rows = map { chomp; $_ } <$psql>;
	close $psql or die "psql failed: $sql";
	return [ sort @rows ];
}

for my $view (qw(allocations batches stock events))
{
	my $rows = query($database, "SELECT * FROM alloc.$view");
	ok(@$rows > 0, "view $view has rows");
	is_deeply(query("${database}_copy", "SELECT * FROM alloc.$view"), $rows,
		'the copy has the same');
}

# ---- the tables of reference ----

# The rows of the table below a heading, each a list of cells, without the
# marks of code.
sub reference
{
	my ($heading) = @_;
	my ($table) = $readme =~ /^### \Q$heading\E\n.*?\n\|[-| ]+\|\n((?:\|[^\n]*\n)+)/ms;
	die "no table below $heading" unless defined $table;
	$table =~ tr/`//d;
	return map { [ split / *\| */, s/^\| *//r ] } split /\n/, $table;
}

is_deeply([ sort map { $_->[0] } reference('Functions') ],
	query($database, q{
		SELECT format('%s(%s)', proname, replace(regexp_replace(regexp_replace(
			pg_get_function_arguments(oid), '(, |^)OUT .*', ''), '::(date|text|bigint)', '', 'g'),
			'timestamp with time zone', 'timestamptz'))
		  FROM pg_proc
		 WHERE pronamespace = 'alloc'::regnamespace AND proname !~ '^_'}),
	'the functions are those that there are');

is_deeply([ sort map { "$_->[0]: $_->[1]" } reference('Views') ],
	query($database, q{
		SELECT format('%s: %s', relname, string_agg(attname, ', ' ORDER BY attnum))
		  FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
		 WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'v'
		 GROUP BY relname}),
	'the views have the columns that they have');

# Each type of event has occurred in the examples, and with all of its keys.
is_deeply(
	[ sort map {
			my ($type, undef, $keys) = @$_;
			join ' ', "$type:", sort map { /^(\w+)/ } split /, /, $keys
	} reference('Events') ],
	query($database, q{
		SELECT format('%s: %s', type, string_agg(DISTINCT key, ' ' ORDER BY key))
		  FROM alloc.events, jsonb_object_keys(payload) key
		 WHERE key <> ALL ('{event_id,type,at,sku,traceparent}')
		 GROUP BY type}),
	'the events have the keys that they have');

is_deeply([ map { "$_->[0] $_->[2]" } reference('Settings') ],
	[ split /\n/, run_sql("\\pset format unaligned\n\\pset tuples_only on\n"
		. "SELECT name || ' ' || boot_val FROM pg_settings WHERE name LIKE 'alloc.%';\n") ],
	'the settings are those that there are, with their defaults');

# ---- what it refers to ----

my %anchor;
$anchor{ lc($_) =~ tr/a-z0-9 _-//cdr =~ tr/ /-/r } = 1 for $readme =~ /^#+ (.*)$/mg;
for my $target ($readme =~ /\]\(([^)]+)\)/g)
{
	if ($target =~ /^#(.*)/)
	{
		ok($anchor{$1}, "the section $1 exists");
	}
	else
	{
		ok(-e $target, "the file $target exists");
	}
}

if (defined $ENV{README_UPDATE})
{
	my @now = map { $_->{now} } grep { defined $_->{output} } @examples;
	$readme =~ s/^```text\n.*?^```$/"```text\n" . shift(@now) . '```'/msge;
	open my $out, '>', $ENV{README_UPDATE} or die "$ENV{README_UPDATE}: $!";
	print $out $readme;
	close $out or die "$ENV{README_UPDATE}: $!";
}

close $to_psql;
system("dropdb $database; for name in copy router 0 1; do dropdb ${database}_\$name; done;"
	  . ' psql -Xqc "DROP ROLE shop_seller, shop_buyer, shop_reader"') == 0
  or die 'cannot clean up';
done_testing();
