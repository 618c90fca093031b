# The two commands that matter: `make demo` and `make test`. Both install what they need
# (Debian packages, by apt, as root) and build what is missing.

CARGO ?= cargo

.PHONY: help demo test test-full campaign bench build lint setup clean

help:
	@echo "make demo       set up the lab, deploy a cluster, break it, recover it"
	@echo "make test       everything CI runs: lints, tests, the lab on bookworm, in short on trixie"
	@echo "make test-full  the whole matrix: every lab test on both releases"
	@echo "make campaign   repairs disturbed at twelve points; FLOW_CAMPAIGN=every: at each"
	@echo "make bench      the comparisons of docs/performance.md"
	@echo "make build      target/debug/flow"
	@echo "make clean      end the lab, remove what was built"

setup:
	@fixtures/scripts/setup

build: setup
	$(CARGO) build

demo: build
	fixtures/demo

lint: setup
	fixtures/scripts/lint

test: lint
	fixtures/scripts/test

test-full: lint
	FLOW_TEST_FULL=1 fixtures/scripts/test

campaign: setup
	fixtures/scripts/campaign

bench: setup
	benches/run

clean:
	fixtures/lab/lab down || true
	$(CARGO) clean
