# What the TAP tests of a fleet share: partitions on servers of their own, a
# router before them.

package AllocFleet;

use strict;
use warnings;

use AllocTest qw(new_node);
use Exporter 'import';
use PostgreSQL::Test::Cluster;

our @EXPORT_OK = qw(new_partition new_router connection fleet_contents);

# A server that is a partition.
sub new_partition
{
	my ($name, $settings, %options) = @_;

	return new_node($name, ($settings // '') . "\nmax_connections = 100\n", %options);
}

# How a router reaches a server.
sub connection
{
	my ($node) = @_;

	return sprintf("host=%s port=%s dbname=postgres", $node->host, $node->port);
}

# A server that is the router of partitions, in the order of their numbers.
sub new_router
{
	my ($name, @partitions) = @_;
	my $node = new_node($name, "max_connections = 100\n");
	my $list = join(', ', map { "'" . connection($_) . "'" } @partitions);

	$node->safe_psql('postgres', 'CREATE EXTENSION plproxy');
	$node->safe_psql('postgres', "SELECT alloc.create_router('fleet', ARRAY[$list])");
	return $node;
}

# Rows of a query on each of some servers, one after the other.
sub fleet_contents
{
	my ($query, @nodes) = @_;

	return join("\n", grep { $_ ne '' } map { $_->safe_psql('postgres', $query) } @nodes);
}

1;
