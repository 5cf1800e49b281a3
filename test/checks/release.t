#!/usr/bin/env perl
# One version number everywhere, and a META.json that follows the PGXN Meta
# Spec 1.0.0.  Needs no server.  Prints TAP.
use strict;
use warnings;
use FindBin;
use JSON::PP;
use Test::More;

chdir "$FindBin::RealBin/../.." or die "chdir: $!";

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or die "$path: $!";
	local $/ = undef;
	return scalar <$file>;
}

my $meta = decode_json(slurp('META.json'));

# ---- the version ----

my ($version) = slurp('alloc.control') =~ /^default_version\s*=\s*'(.*?)'/m;
my %stated = (
	'the top entry of CHANGELOG.md' => slurp('CHANGELOG.md') =~ /^## +([0-9]\S*)/m,
	'README.md' => slurp('README.md') =~ /^Version (\S+) has$/m,
	'debian/changelog' => slurp('debian/changelog') =~ /^alloc \(([^)-]+)/,
	'META.json' => $meta->{version},
	'what META.json provides' => $meta->{provides}{alloc}{version},
	'the script that META.json names' => $meta->{provides}{alloc}{file} =~ m{^sql/alloc--(.*)\.sql$});
is($stated{$_}, $version, "$_ has the version of alloc.control") foreach sort keys %stated;
like(slurp('CHANGELOG.md'), qr/^## +\Q$version\E \(\d{4}-\d\d-\d\d\)$/m, 'it has a day of release');

# ---- META.json ----

my $semantic = qr/(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-?[A-Za-z][0-9A-Za-z-]*)?/;
my $range = qr/(?:(?:[<>]=?|==|!=)\s*)?(?:0|$semantic)/;
my $term = qr{[^\p{Cc}\s/\\]{2,}};
my $url = qr{(?:https?|ftp|git|svn)://\S+}i;
my %licenses = map { $_ => 1 } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2
	bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 lgpl_3_0 mit mozilla_1_0
	mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source
	restricted unrestricted unknown);

sub matches { my ($pattern) = @_; return sub { defined $_[0] && !ref $_[0] && $_[0] =~ /\A(?:$pattern)\z/s } }
sub one_of { my %known = map { $_ => 1 } @_; return sub { !ref $_[0] && $known{ $_[0] } } }
sub list_of { my ($is) = @_; return sub { ref $_[0] eq 'ARRAY' && @{ $_[0] } && !grep { !$is->($_) } @{ $_[0] } } }
sub either { my @may = @_; return sub { my ($value) = @_; scalar grep { $_->($value) } @may } }

# A map whose keys and values are as told; whose fields, those that it must have
# and those that it may have, are.
sub map_of
{
	my ($key, $is) = @_;
	return sub { ref $_[0] eq 'HASH' && %{ $_[0] } && !grep { !$key->($_) || !$is->($_[0]{$_}) } keys %{ $_[0] } };
}

sub fields
{
	my ($must, $may) = @_;
	my %is = (%$must, %$may);

	return sub {
		my ($value) = @_;
		return ref $value eq 'HASH' && !(grep { !exists $value->{$_} } keys %$must) &&
			!(grep { !/^x_/i && !($is{$_} && $is{$_}->($value->{$_})) } keys %$value);
	};
}

my ($text, $link) = (matches(qr/.+/), matches($url));
my $versions = map_of(matches($term), matches(qr/$range(?:\s*,\s*$range)*/));
my %must = (
	'name' => matches($term),
	'abstract' => $text,
	'version' => matches($semantic),
	'maintainer' => either($text, list_of($text)),
	'license' => either(one_of(keys %licenses), list_of(one_of(keys %licenses)), map_of($text, $link)),
	'provides' => map_of(matches($term), fields(
			{ file => $text, version => matches($semantic) },
			{ abstract => $text, docfile => sub { -f $_[0] } })),
	'meta-spec' => fields({ version => matches(qr/1\.0\.0/) }, { url => $link }));
my %may = (
	'description' => $text,
	'generated_by' => $text,
	'tags' => list_of(matches(qr{[^\p{Cc}/\\]{1,255}})),
	'no_index' => fields({}, { map { $_ => list_of($text) } qw(file directory) }),
	'prereqs' => map_of(one_of(qw(configure build test runtime develop)),
		map_of(one_of(qw(requires recommends suggests conflicts)), $versions)),
	'release_status' => one_of(qw(stable testing unstable)),
	'resources' => fields({}, {
			homepage => $link,
			bugtracker => fields({}, { web => $link, mailto => matches(qr/\S+@\S+/) }),
			repository => fields({}, { url => $link, web => $link, type => $text }) }));

ok(exists $meta->{$_}, "META.json has $_") foreach sort keys %must;
foreach my $field (sort keys %$meta)
{
	my $is = $must{$field} // $may{$field} // sub { $field =~ /^x_/i };

	ok($is->($meta->{$field}), "META.json: $field is as the specification wants it");
}
ok(exists $meta->{provides}{alloc}, 'META.json provides alloc');

done_testing();
