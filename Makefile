# The front door; CMakeLists.txt says how things are built, scripts/ does the work.
#
#   make demo        build, make signals, run tasks/link11-demo from teacher to cascade, write its report
#   make demo-mnist  build, find MNIST (or fetch it), run tasks/mnist from teacher to federation
#   make check       optimised build and tests, then the same under address and undefined sanitizers
#   make check-full  more: thread sanitizer, valgrind, fuzzing, many kills, a fault at every file operation,
#                   thousands of random graphs, a hundred thousand histories of a fleet, all limits on memory,
#                   slow links between namespaces (root), a fleet's page in a browser, fedstill-edge, a cross build
#                   for arm64 under qemu (root), oneDNN 3 in a Debian 13, the packages in a bare Debian 12 (root)
#   make field-trial  a fleet over real links between namespaces, beside the simulated ones (root; TRIAL="--runs 3 TASK")
#   make fixtures    golden cases over $FEDSTILL_FIXTURES (default: tests/fixtures)
#   make bench       speed of every workload; WORKLOADS="mnist_teacher ..." picks some
#   make edge        build-edge/fedstill-edge: a small program that runs models, alone and in a fleet's cascade
#   make install     program, library, headers, manual page; PREFIX (/usr/local), DESTDIR
#   make package     Debian packages of the last commit, in build-package
#   make fuzz        every fuzz target for FUZZ_SECONDS (60); ENGINE=afl by AFL++ instead of libFuzzer
#   make docs        docs/task-file.md, from the tables that read task files
#   make format      clang-format over the sources
#   make clean       removes the build folders

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
ENGINE ?= libfuzzer
KILLS ?= 200
GRAPHS ?= 4000
HISTORIES ?= 11200
WORKLOADS ?=
TRIAL ?=
FEDSTILL_FIXTURES ?= tests/fixtures
# Tests run in folders of their own.
override FEDSTILL_FIXTURES := $(abspath $(FEDSTILL_FIXTURES))

export JOBS FUZZ_SECONDS FEDSTILL_FIXTURES

STRICT = -DFEDSTILL_WERROR=ON
ASAN = $(STRICT) -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFEDSTILL_SANITIZE=address,undefined
TSAN = $(STRICT) -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFEDSTILL_SANITIZE=thread -DFEDSTILL_ONEDNN=OFF
FUZZ = $(STRICT) -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFEDSTILL_FUZZ=ON -DCMAKE_C_COMPILER=clang
AFL = $(STRICT) -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFEDSTILL_FUZZ=ON -DCMAKE_C_COMPILER=afl-clang-fast

all: deps
	scripts/build $(BUILD)

demo: deps
	scripts/build $(BUILD) --target fedstill-cli
	scripts/demo $(BUILD)/fedstill

demo-mnist: deps
	scripts/build $(BUILD) --target fedstill-cli
	scripts/demo-mnist $(BUILD)/fedstill

check: deps
	scripts/build $(BUILD) $(STRICT)
	scripts/run-tests $(BUILD)
	scripts/build build-asan $(ASAN)
	scripts/run-tests build-asan

check-full: check
	scripts/install-deps --full
	scripts/build build-tsan $(TSAN)
	scripts/run-tests build-tsan -E '^(golden|fuzz|tools)/'
	scripts/run-valgrind $(BUILD)
	scripts/build build-fuzz $(FUZZ)
	scripts/run-fuzz --replay build-fuzz
	scripts/run-fuzz build-fuzz
	FEDSTILL_KILLS=$(KILLS) scripts/run-tests $(BUILD) -R 'kill|fleet/test_fleet$$'
	FEDSTILL_BROWSER=1 scripts/run-tests $(BUILD) -R 'fleet/test_page$$|cmd/test_compare$$'
	FEDSTILL_HISTORIES=$(HISTORIES) scripts/run-tests $(BUILD) -R histories
	scripts/run-tests $(BUILD) -C full -R slow_links
	FEDSTILL_FAULTS=1 scripts/run-tests $(BUILD) -R test_faults
	FEDSTILL_MEMORY_STEP=2000 scripts/run-tests $(BUILD) -R test_low_memory
	FEDSTILL_GRAPHS=$(GRAPHS) scripts/run-tests $(BUILD) -R random_graphs
	scripts/check-edge $(BUILD)
	scripts/check-arm64
	scripts/check-debian13
	scripts/check-package

field-trial: deps
	scripts/build $(BUILD) --target fedstill-cli
	scripts/field-trial --build $(BUILD) $(TRIAL)

fixtures: deps
	scripts/build $(BUILD) --target run_fixtures
	$(BUILD)/tests/run_fixtures $(FEDSTILL_FIXTURES)

bench: deps
	scripts/build $(BUILD) --target fedstill-cli
	$(BUILD)/fedstill bench $(WORKLOADS)

install: deps
	scripts/build $(BUILD)
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)
	scripts/install-made $(BUILD)/fedstill $(DESTDIR)$(PREFIX)/share

edge: deps
	scripts/build build-edge -DFEDSTILL_EDGE=ON

package:
	scripts/package build-package

fuzz:
ifeq ($(ENGINE),afl)
	scripts/install-deps --full
	scripts/build build-afl $(AFL)
	scripts/run-fuzz --engine afl build-afl
else
	scripts/install-deps --full
	scripts/build build-fuzz $(FUZZ)
	scripts/run-fuzz build-fuzz
endif

docs: deps
	scripts/build $(BUILD) --target fedstill-cli
	$(BUILD)/fedstill --task-reference >docs/task-file.md

format:
	find src cmd include tests fuzz -name '*.[ch]' -exec clang-format -i {} +

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz build-afl build-edge

deps:
	@scripts/install-deps

.PHONY: all demo demo-mnist check check-full field-trial fixtures bench edge install package fuzz docs format clean deps
