# alloc: build, installation and tests.
#
# make, make install, make installcheck work as in any PGXS project
# (PG_CONFIG=...) and install nothing but alloc.  The targets demo, test,
# bench and lint also run on a machine without PostgreSQL: they first install
# from Debian what is missing, and then start make again.

MODULE_big = alloc
OBJS := $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

EXTENSION = alloc
EXTVERSION := $(shell sed -n "s/^default_version *= *'\([^']*\)'.*/\1/p" alloc.control)

# The install script is put together from its parts.  So is, until a release
# fixes it, the upgrade script from the version before, whose install script is
# kept: parts that are new since then as they are, of the others what can be
# replaced in place.  The rest is in sql/upgrade/begin.sql.
PARTS := $(sort $(wildcard sql/[0-9][0-9]_*.sql))
OLD_VERSION = 0.1.0
OLD_PARTS := $(addprefix sql/,10_tables.sql 15_snapshots.sql 20_commands.sql \
	25_consumers.sql 26_handlers.sql 27_messages.sql 30_queries.sql \
	35_stats.sql 40_replay.sql 45_check.sql 46_repair.sql 47_archive.sql \
	48_backorders.sql 90_access.sql)
SCRIPT = sql/alloc--$(EXTVERSION).sql
UPGRADE = sql/alloc--$(OLD_VERSION)--$(EXTVERSION).sql
DATA = sql/alloc--$(OLD_VERSION).sql
DATA_built = $(SCRIPT) $(UPGRADE)

# What PostgreSQL's own headers and macros cause is off, the rest is an error.
PG_CFLAGS = -Wall -Wextra -Werror \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# PostgreSQL looks for the inputs in test/, for expected/ here.  The isolation
# tests need the last --outputdir: PGXS gives another one before it, in which
# PostgreSQL 15 would look for expected/.
REGRESS := $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION := $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=.
PROVE_TESTS = $(sort $(wildcard test/t/*.pl))

EXTRA_CLEAN = build log results regression.diffs regression.out \
	output_iso tmp_check tmp_check_iso compile_commands.json

PG_CONFIG ?= pg_config
export PG_CONFIG
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
HEADER := $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h

# Some client packages have PGXS without the server's headers.
ifneq ($(and $(wildcard $(PGXS)),$(wildcard $(HEADER))),)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h) Makefile

# Both scripts in one go, the one that rules are about last: the directory,
# which is there for a part that was removed, is as new as the newest file in it.
$(SCRIPT): $(PARTS) $(wildcard sql/upgrade/*) sql
	{ cat sql/upgrade/begin.sql && \
	for part in $(filter-out sql/00_guard.sql,$(PARTS)); do \
		case ' $(OLD_PARTS) ' in \
			*" $$part "*) awk -f sql/upgrade/replace.awk $$part ;; \
			*) cat $$part ;; \
		esac || exit; \
	done && \
	cat sql/upgrade/end.sql; } >$(UPGRADE)
	cat $(PARTS) >$@

$(UPGRADE): $(SCRIPT) ;

# The TAP tests start servers of their own, which root may not: they are no
# part of installcheck.
.PHONY: prove_installcheck
prove_installcheck:
	$(prove_installcheck)

# For lint: the flags with which the compiler sees a source file.
.PHONY: print-cppflags
print-cppflags:
	@echo $(CPPFLAGS)

# Install into a PostgreSQL that may belong to root.
.PHONY: install-as-needed
install-as-needed: all
	@if [ -w '$(pkglibdir)' ] && [ -w '$(datadir)/extension' ]; \
	then $(MAKE) -s install; \
	else bash -c '. test/lib.sh; as_root "$$@"' make \
		$(MAKE) -s install PG_CONFIG='$(PG_CONFIG)'; fi

.PHONY: demo-here test-here bench-here lint-here fuzz-here test-leaks-here
demo-here: install-as-needed
	test/with-server doc/demo/run

test-here: install-as-needed
	test/run

bench-here: install-as-needed
	test/bench/run

# A fleet: partitions on several servers, and a router.
.PHONY: demo-cluster-here bench-cluster-here
demo-cluster-here: install-as-needed
	test/with-server doc/demo/run_cluster

bench-cluster-here: install-as-needed
	test/bench/run cluster

lint-here: all
	test/lint

fuzz-here: install-as-needed
	test/fuzz/run

test-leaks-here: install-as-needed
	test/leaks

else

.DEFAULT_GOAL := all
.PHONY: all install uninstall installcheck demo-here test-here bench-here lint-here demo-cluster-here bench-cluster-here fuzz-here test-leaks-here
all install uninstall installcheck demo-here test-here bench-here lint-here demo-cluster-here bench-cluster-here fuzz-here test-leaks-here:
	@echo >&2 'No PostgreSQL development files: $(HEADER), or what "$(PG_CONFIG) --pgxs" names, is missing.'
	@echo >&2 'Install them (Debian: test/install-deps build) or set PG_CONFIG.'
	@exit 1

.PHONY: clean
clean:
	rm -rf $(OBJS) $(OBJS:.o=.bc) alloc.so $(DATA_built) $(EXTRA_CLEAN)

endif

# The last four take too long to be part of "make test".
.PHONY: demo test bench lint demo-cluster bench-cluster fuzz test-leaks
demo test bench lint demo-cluster bench-cluster fuzz test-leaks:
	@test/install-deps $@
	@$(MAKE) --no-print-directory $@-here

# All tests with a PostgreSQL that watches its memory.
.PHONY: test-sanitize
test-sanitize:
	@test/install-deps test sanitize
	@test/sanitize

# pg_upgrade between two versions of PostgreSQL, in a root of its own.
.PHONY: test-upgrade
test-upgrade:
	@test/install-deps roots
	@test/pg-upgrade

# The tests on each version of PostgreSQL, likewise; MATRIX="trixie forky" and
# MATRIX_KINDS="regress isolation" choose.
.PHONY: test-matrix
test-matrix:
	@test/install-deps roots
	@test/matrix

# The Debian packages, likewise; DEB="trixie forky" chooses.
.PHONY: test-deb
test-deb:
	@test/install-deps roots
	@test/deb $(DEB)
