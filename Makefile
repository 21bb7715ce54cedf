# libmarmot. `make` builds ./libmarmot.so; everything else goes under build/.
#
#   deps            installs the Debian packages that are missing (nothing when all are there)
#   demo, check     the two first commands: each brings what it needs
#   check-asan, check-tsan, check-valgrind, check-hosts, fuzz, soak, bench, lint, format, install, clean
#
# WERROR=1 makes warnings errors. A variant is a folder under build/ with its own
# compiler and flags: release, asan, tsan, strict (gcc -Werror), clang (clang -Werror), fuzz.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
SECONDS ?= 600

# --- Packages ---------------------------------------------------------------

DEPS := gcc libc6-dev pkg-config python3 libnats-dev nats-server libprotobuf-c-dev protobuf-c-compiler \
        libzstd-dev libsqlite3-dev sqlite3 libjansson-dev nettle-dev libcurl4-openssl-dev
# Servers that snapshots are stored on.
SERVERS := apache2-bin openssl openssh-server rclone memcached swift-proxy swift-account swift-container swift-object \
           python3-swift
# npm fetches the SQLite amalgamations that the tests compile; any npm on PATH will do.
DEPS_CHECK := $(DEPS) $(shell command -v npm >/dev/null 2>&1 || echo npm) zstd
# Tests of hosts and stores skip what is not there.
EXTRAS := libdbd-sqlite3-perl libsqlite3-tcl php-cli php-sqlite3 ruby-sqlite3 luajit $(SERVERS)
DEPS_HOSTS := $(DEPS_CHECK) $(EXTRAS) clang python3-venv r-cran-rsqlite sqlcipher
DEPS_LINT := $(DEPS) binutils clang clang-format
DEPS_FUZZ := $(DEPS_LINT) libclang-rt-14-dev
DEPS_VALGRIND := $(DEPS) valgrind

# $(call need,packages): names the missing ones, installs them.
need = ./test/lib/packages.sh $(1)

comma := ,

# --- Sources ----------------------------------------------------------------

EXT := $(sort $(wildcard ext/*.c ext/*/*.c))
GEN := build/gen/sql_texts build/gen/marmot.pb-c
GEN_HEADERS := $(GEN:=.h)
SQL := $(sort $(wildcard sql/[0-9]*.sql))

UNIT := $(patsubst test/unit/%.c,%,$(sort $(wildcard test/unit/*.c)))
ATTACK := $(patsubst test/sql/%.c,%,$(sort $(wildcard test/sql/*.c)))
FUZZ := $(patsubst test/fuzz/%.c,%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
TEST_LIB := $(sort $(wildcard test/lib/*.c))
# A cluster in one process: programs that include it get its doubles in place of ours.
MODEL := $(sort $(wildcard test/model/*.c))
MODEL_USERS := $(if $(MODEL),$(patsubst test/%.c,%,$(shell grep -l '"test/model/' test/unit/*.c)))
# Its allocations can be made to fail.
MODEL_WRAP := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc strdup free)
SCRIPTS := $(sort $(wildcard test/unit/*.py test/sql/*.py test/unit/*.sh test/sql/*.sh test/fault/*.sh))
# A snapshot store at the end of a pipe, for the scripts.
TOOL := test/cluster/store_tool
# Those that bring their hosts by small packages; the others belong to check-hosts.
HOST := test/host/matrix.py test/host/tls.py
HOST_ALL := $(sort $(filter-out %/host.py,$(wildcard test/host/*.py)))
CLUSTER := $(sort $(wildcard test/cluster/*.py test/cluster/*.sh test/fault/*.py))

# --- Flags ------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wconversion $(if $(WERROR),-Werror)
BASE := -std=c11 -D_GNU_SOURCE -g -fPIC -fvisibility=hidden -Iext -Ibuild/gen
# jansson's static archive is not position independent; the others are, and
# linked in they cannot meet another version in the host.
LIBS := -ljansson -l:libnettle.a -l:libzstd.a -l:libprotobuf-c.a -lpthread -ldl
LINK := -shared -Wl,-Bsymbolic -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,--as-needed -Wl,--exclude-libs,ALL \
        -Wl,--version-script=build/gen/exports.map
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

CC_release := gcc
FLAGS_release := -O2 $(WARN)
LINK_release := -Wl,-z,defs
CC_asan := gcc
FLAGS_asan := -O1 $(ASAN) $(WARN)
LINK_asan := -Wl,-z,defs
CC_tsan := gcc
# initial-exec: where thread-local storage comes by a call, TSan guesses its size by what lies before it, and now
# and then marks the whole memory.
FLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer -ftls-model=initial-exec $(WARN)
LINK_tsan := -Wl,-z,defs
CC_strict := gcc
FLAGS_strict := -O2 $(WARN) -Werror
LINK_strict := -Wl,-z,defs
CC_clang := clang
FLAGS_clang := -O1 $(WARN) -Werror
LINK_clang := -Wl,-z,defs
CC_fuzz := clang
FLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all $(WARN)
VARIANTS := release asan tsan strict clang fuzz

.PHONY: all deps demo check check-run check-asan check-asan-run check-tsan check-tsan-run check-valgrind \
        check-valgrind-run check-hosts fuzz fuzz-run soak bench bench-run lint lint-strict lint-clang format install clean sqlites
.SECONDARY:

all: libmarmot.so

# By rename: a program that has the old one loaded keeps it whole.
libmarmot.so: build/release/libmarmot.so
	cp $< build/libmarmot.so.new
	mv -f build/libmarmot.so.new $@

# --- Generated --------------------------------------------------------------

build/gen/marmot.pb-c.h build/gen/marmot.pb-c.c &: proto/marmot.proto
	@command -v protoc-c >/dev/null || { echo "protoc-c is missing: make deps installs what the build needs" >&2; exit 1; }
	@mkdir -p build/gen
	protoc-c --c_out=build/gen --proto_path=proto $<

build/gen/sql_texts.h build/gen/sql_texts.c &: $(SQL) sql/embed.awk
	@mkdir -p build/gen
	awk -v part=h -f sql/embed.awk $(SQL) >build/gen/sql_texts.h
	awk -v part=c -f sql/embed.awk $(SQL) >build/gen/sql_texts.c

build/gen/exports.map: Makefile
	@mkdir -p build/gen
	echo '{ global: sqlite3_marmot_init; sqlite3_extension_init; local: *; };' >$@

# --- One set of rules a variant ---------------------------------------------

# The archive holds all but the entry point: test programs take from it what
# they use.
define variant
build/$(1)/ext/%.o: ext/%.c | $$(GEN_HEADERS)
	@mkdir -p $$(@D)
	$$(CC_$(1)) $$(BASE) $$(FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
build/$(1)/gen/%.o: build/gen/%.c | $$(GEN_HEADERS)
	@mkdir -p $$(@D)
	$$(CC_$(1)) $$(BASE) $$(FLAGS_$(1)) -w -c -o $$@ $$<
build/$(1)/test/%.o: test/%.c | $$(GEN_HEADERS)
	@mkdir -p $$(@D)
	$$(CC_$(1)) $$(BASE) -I. $$(FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
OBJ_$(1) := $$(EXT:%.c=build/$(1)/%.o) $$(GEN:build/gen/%=build/$(1)/gen/%.o)
build/$(1)/libmarmot.so: $$(OBJ_$(1)) build/gen/exports.map
	$$(CC_$(1)) $$(FLAGS_$(1)) $$(LINK) $$(LINK_$(1)) -o $$@ $$(OBJ_$(1)) $$(LIBS)
build/$(1)/inner.a: $$(filter-out build/$(1)/ext/marmot.o,$$(OBJ_$(1)))
	@rm -f $$@
	ar rcs $$@ $$^
build/$(1)/helpers.a: $$(TEST_LIB:%.c=build/$(1)/%.o)
	@rm -f $$@
	ar rcs $$@ $$^
build/$(1)/test/%: build/$(1)/test/%.o build/$(1)/helpers.a build/$(1)/inner.a
	$$(CC_$(1)) $$(FLAGS_$(1)) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group -lsqlite3 $$(LIBS) -lm $$(WRAP)
$(FUZZ:%=build/$(1)/test/fuzz/%): build/$(1)/test/fuzz/driver.o
$(MODEL_USERS:%=build/$(1)/test/%): $(MODEL:%.c=build/$(1)/%.o)
$(MODEL_USERS:%=build/$(1)/test/%): WRAP := $(MODEL_WRAP)
endef
$(foreach v,$(VARIANTS),$(eval $(call variant,$(v))))

build/fuzz/run/%: build/fuzz/test/fuzz/%.o build/fuzz/helpers.a build/fuzz/inner.a
	@mkdir -p $(@D)
	clang $(FLAGS_fuzz) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lsqlite3 $(LIBS) -lm

# --- Tests against SQLite's own sources, with its asserts and the sanitizers --

SQLITES := 3.40.1 3.54.1
# Not the undefined-behaviour sanitizer: 3.40.1 reads past the pointers of an array of its own.
SQLITE_FLAGS := -O1 -g -fsanitize=address -fno-omit-frame-pointer -w -DSQLITE_DEBUG -DSQLITE_ENABLE_PREUPDATE_HOOK -DSQLITE_ENABLE_SESSION

define sqlite
build/sqlite/$(1)/sqlite3.c:
	./test/lib/fetch_sqlite.sh $(1)
build/sqlite-$(1)/sqlite3.o: build/sqlite/$(1)/sqlite3.c
	@mkdir -p $$(@D)
	gcc $$(SQLITE_FLAGS) -c -o $$@ $$<
build/sqlite-$(1)/test/%.o: test/%.c build/sqlite/$(1)/sqlite3.c | $$(GEN_HEADERS)
	@mkdir -p $$(@D)
	gcc -DSQLITE_DEBUG -DSQLITE_ENABLE_PREUPDATE_HOOK -DSQLITE_ENABLE_SESSION -Ibuild/sqlite/$(1) $$(BASE) -I. \
	    $$(FLAGS_asan) -MMD -MP -c -o $$@ $$<
build/sqlite-$(1)/helpers.a: $$(TEST_LIB:%.c=build/sqlite-$(1)/%.o)
	@rm -f $$@
	ar rcs $$@ $$^
build/sqlite-$(1)/test/%: build/sqlite-$(1)/test/%.o build/sqlite-$(1)/helpers.a build/asan/inner.a build/sqlite-$(1)/sqlite3.o
	gcc $$(FLAGS_asan) -rdynamic -o $$@ $$< -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(filter %/sqlite3.o,$$^) $$(LIBS) -lm
endef
$(foreach v,$(SQLITES),$(eval $(call sqlite,$(v))))

sqlites: $(SQLITES:%=build/sqlite/%/sqlite3.c)

# --- Commands ---------------------------------------------------------------

deps:
	@$(call need,$(DEPS))

demo:
	@$(call need,$(DEPS))
	@$(MAKE) -s -j$(JOBS) libmarmot.so
	@./test/demo

UNIT_release := $(UNIT:%=build/release/test/unit/%) $(ATTACK:%=build/release/test/sql/%)
UNIT_asan := $(UNIT:%=build/asan/test/unit/%) $(ATTACK:%=build/asan/test/sql/%)
# Without libFuzzer: the corpora, and some seconds of seeded mutations.
FUZZ_asan := $(FUZZ:%=build/asan/test/fuzz/%)
UNIT_tsan := $(UNIT:%=build/tsan/test/unit/%)
# Where the amalgamations cannot be had, the runner says that these were skipped.
ATTACKS := $(foreach v,$(SQLITES),$(ATTACK:%=build/sqlite-$(v)/test/sql/%))

check:
	@$(call need,$(DEPS_CHECK) $(if $(LINT),$(DEPS_LINT)))
	@$(call need,$(EXTRAS)) || { [ -z "$(STRICT)" ] && echo "some packages cannot be had: their tests are skipped"; }
	@$(MAKE) -j$(JOBS) libmarmot.so
	@$(MAKE) sqlites || [ -z "$(STRICT)" ]
	@$(MAKE) -j$(JOBS) check-run LINT=$(LINT)
ATTACKS_HERE := $(foreach v,$(SQLITES),$(if $(wildcard build/sqlite/$(v)/sqlite3.c),$(ATTACK:%=build/sqlite-$(v)/test/sql/%)))
check-run: libmarmot.so $(UNIT_release) $(FUZZ_asan) $(ATTACKS_HERE) build/release/$(TOOL)
	@./test/run $(if $(LINT),test/lint) $(UNIT_release) $(FUZZ_asan) $(ATTACKS_HERE) $(SCRIPTS) $(CLUSTER) $(HOST) \
	    --skipped $(filter-out $(ATTACKS_HERE),$(ATTACKS))

check-asan:
	@$(call need,$(DEPS))
	@$(MAKE) -j$(JOBS) check-asan-run
check-asan-run: build/asan/libmarmot.so $(UNIT_asan) build/asan/$(TOOL)
	@MARMOT_SO=$(CURDIR)/build/asan/libmarmot.so MARMOT_PRELOAD=$$(gcc -print-file-name=libasan.so) \
	    ASAN_OPTIONS=detect_leaks=1 ./test/run --slow 3 $(UNIT_asan) $(SCRIPTS) $(CLUSTER)

check-tsan:
	@$(call need,$(DEPS))
	@$(MAKE) -j$(JOBS) check-tsan-run
check-tsan-run: build/tsan/libmarmot.so $(UNIT_tsan) build/tsan/$(TOOL)
	@MARMOT_SO=$(CURDIR)/build/tsan/libmarmot.so MARMOT_PRELOAD=$$(gcc -print-file-name=libtsan.so) \
	    TSAN_OPTIONS=halt_on_error=1 MARMOT_TEST_ROUNDS=5 ./test/run --slow 5 \
	    $(UNIT_tsan) $(SCRIPTS) $(CLUSTER)

check-valgrind:
	@$(call need,$(DEPS_VALGRIND))
	@$(MAKE) -j$(JOBS) check-valgrind-run
# A host is left at its first error: the one that leads a test sees it end. Leaks are looked for
# in the programs in C alone, Python has its own.
# Without attack_faults, whose sweep over each allocation takes many minutes (it runs under ASan);
# value_keys, since valgrind's long double has 64 bits and SQLite compares numbers with it; and
# bus_restart, which measures its own memory.
NOT_VALGRIND := %/attack_faults %/value_keys %/bus_restart
VALGRIND := valgrind -q --error-exitcode=99 --suppressions=$(CURDIR)/test/lib/valgrind.supp
check-valgrind-run: build/release/libmarmot.so $(UNIT_release)
	@MARMOT_SO=$(CURDIR)/build/release/libmarmot.so MARMOT_WRAP='$(VALGRIND) --exit-on-first-error=yes --fair-sched=yes' \
	    MARMOT_TEST_ROUNDS=5 PYTHONMALLOC=malloc \
	    ./test/run --slow 20 --wrap '$(VALGRIND) --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite' \
	    $(filter-out $(NOT_VALGRIND),$(UNIT_release)) test/cluster/kill_rounds.py test/cluster/both_ways.py

# Every language and build of SQLite that the registries give; those that cannot be had are named.
check-hosts:
	@$(call need,$(DEPS_HOSTS))
	@$(MAKE) -s -j$(JOBS) libmarmot.so
	@MARMOT_HOSTS=all ./test/run $(HOST_ALL)

fuzz:
	@$(call need,$(DEPS_FUZZ))
	@$(MAKE) -j$(JOBS) fuzz-run
fuzz-run: $(FUZZ:%=build/fuzz/run/%)
	@for f in $(FUZZ); do mkdir -p build/fuzz/corpus/$$f && \
	    build/fuzz/run/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 build/fuzz/corpus/$$f \
	        $$(ls -d test/fuzz/corpus/$${f#fuzz_} test/fuzz/corpus/$$f 2>/dev/null) || exit 1; done

soak:
	@$(call need,$(DEPS))
	@$(MAKE) -s -j$(JOBS) libmarmot.so build/release/test/unit/replay_random build/release/test/unit/replay_faults
	@PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 test/cluster/storm.py --seconds $(SECONDS)
	@PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 test/cluster/mixed_storm.py --seconds $(SECONDS)
	@PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 test/cluster/values_twin.py --seconds $(SECONDS)
	@./build/release/test/unit/replay_random --seconds $(SECONDS)
	@./build/release/test/unit/replay_faults --full --seconds $(SECONDS)

bench:
	@$(call need,$(DEPS))
	@$(MAKE) -s -j$(JOBS) bench-run
BENCH := $(patsubst bench/%.c,build/bench/%,$(sort $(wildcard bench/*.c)))
build/bench/%: bench/%.c
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -g $(WARN) -o $@ $< -lsqlite3 -lnats -lpthread
bench-run: libmarmot.so $(BENCH)
	@./bench/run

lint:
	@$(call need,$(DEPS_LINT))
	@./test/lint
lint-strict lint-clang: lint-%: build/%/libmarmot.so
	@$(MAKE) -s $(UNIT:%=build/$*/test/unit/%.o) $(ATTACK:%=build/$*/test/sql/%.o) $(TEST_LIB:%.c=build/$*/%.o) \
	    $(MODEL:%.c=build/$*/%.o) build/$*/$(TOOL).o

format:
	@$(call need,clang-format)
	clang-format -i $$(git ls-files '*.c' '*.h')

install: libmarmot.so
	install -D -m 755 libmarmot.so $(DESTDIR)$(PREFIX)/lib/libmarmot.so

clean:
	rm -rf build libmarmot.so

-include $(foreach v,$(VARIANTS),$(wildcard build/$(v)/ext/*.d build/$(v)/ext/*/*.d build/$(v)/test/*/*.d))
-include $(wildcard build/sqlite-*/test/*/*.d)
