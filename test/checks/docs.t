#!/usr/bin/env perl
# The pages in doc/: the files and sections that they name are there.  Prints TAP.
use strict;
use warnings;
use File::Basename;
use Test::More;

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or die "$path: $!";
	local $/ = undef;
	return scalar <$file>;
}

# A title as it is in a link.
sub section
{
	my ($title) = @_;
	return lc($title) =~ s/[^\w\- ]//gr =~ tr/ /-/r;
}

foreach my $page (glob 'doc/*.md')
{
	my $text = slurp($page);
	my %seen;

	while ($text =~ /\]\(([^)#:]*)(?:#([^)]*))?\)/g)
	{
		my ($path, $anchor) = (dirname($page) . "/$1", $2);

		next if $seen{"$path#" . ($anchor // '')}++;
		$path = $page if $1 eq '';
		ok(-e $path, "$page: $path exists") or next;
		next if !defined $anchor;
		my %sections = map { section($_) => 1 } slurp($path) =~ /^#+ (.*)$/mg;
		ok($sections{$anchor}, "$page: $path has section $anchor");
	}
	# What proves a claim.
	while ($text =~ /\[([^\]]*)\](?!\()/g)
	{
		foreach my $name ($1 =~ m{((?:test|\.ci)/[\w./-]+)}g)
		{
			ok(-e $name, "$page: $name exists") if !$seen{$name}++;
		}
	}
}
done_testing();
