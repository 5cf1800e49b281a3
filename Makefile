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
DATA := $(sort $(wildcard sql/alloc--*--*.sql))
DATA_built = sql/alloc--$(EXTVERSION).sql

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

ifneq ($(wildcard $(PGXS)),)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h) Makefile

# The directory is there for a part that was removed.
$(DATA_built): $(sort $(wildcard sql/[0-9][0-9]_*.sql)) sql
	cat $(filter %.sql,$^) >$@

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

.PHONY: demo-here test-here bench-here lint-here
demo-here: install-as-needed
	test/with-server doc/demo/run

test-here: install-as-needed
	test/run

bench-here: install-as-needed
	test/bench/run

lint-here: all
	test/lint

else

.DEFAULT_GOAL := all
.PHONY: all install uninstall installcheck demo-here test-here bench-here lint-here
all install uninstall installcheck demo-here test-here bench-here lint-here:
	@echo >&2 'No PostgreSQL development files: "$(PG_CONFIG) --pgxs" names no file.'
	@echo >&2 'Install them (Debian: test/install-deps build) or set PG_CONFIG.'
	@exit 1

.PHONY: clean
clean:
	rm -rf $(OBJS) $(OBJS:.o=.bc) alloc.so $(DATA_built) $(EXTRA_CLEAN)

endif

.PHONY: demo test bench lint
demo test bench lint:
	@test/install-deps $@
	@$(MAKE) --no-print-directory $@-here

# pg_upgrade between two versions of PostgreSQL, in a root of its own.
.PHONY: test-upgrade
test-upgrade:
	@test/install-deps upgrade
	@test/pg-upgrade
