# An install script's part as a part of an upgrade script.  What can be replaced
# in place is; what cannot, and privileges, which its owner may have changed
# since, is left out: that is written by hand.

/^CREATE (TABLE|SEQUENCE|TYPE|INDEX|UNIQUE INDEX|TRIGGER) / ||
/^(ALTER TABLE|INSERT|GRANT|REVOKE) / ||
/^SELECT pg_catalog\.pg_extension_config_dump\(/ {
	left_out = 1
}

!left_out {
	sub(/^CREATE FUNCTION /, "CREATE OR REPLACE FUNCTION ")
	sub(/^CREATE VIEW /, "CREATE OR REPLACE VIEW ")
	print
}

/;$/ {
	left_out = 0
}
