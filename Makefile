# Every target installs what it needs on a bare Debian or Ubuntu (as root), or names what is missing (scripts/setup).
#
#   make demo              one machine, no Kubernetes: real rules, real packets; ARGS=--once ends by itself
#   make check             formatting, lints, and the tests that need neither root nor other programs: three minutes
#   make test              formatting, lints, tests, the demo as an end-to-end test
#   make withstand         the tests of attacks and faults of `make test`, but for minutes each: docs/reliability.md
#   make bench             what a scrape costs with the static binary, which is shipped; BASELINE=FILE compares the Go exporter
#   make image             dist/calico-accountant (static, musl), and an OCI image with nothing else
#   make release           a whole release in dist/, with checksums; ARGS=--check builds it twice and compares
#   make build lint clean

CARGO := scripts/cargo
ARGS ?=

.PHONY: build demo check test withstand lint bench image release clean

build:
	@scripts/setup build
	$(CARGO) build --release --locked

demo:
	@scripts/setup demo
	$(CARGO) build --release --locked
	demo/run $(ARGS)

check:
	@scripts/setup build
	scripts/check

test:
	@scripts/setup test
	scripts/test

withstand:
	@scripts/setup test
	scripts/withstand

lint:
	@scripts/setup test
	scripts/lint

bench:
	@scripts/setup bench
	scripts/build-static
	ACCOUNTANT=$(CURDIR)/dist/calico-accountant $(CARGO) bench --locked --bench scrape $(ARGS)

image:
	@scripts/setup image
	scripts/build-static
	scripts/build-image

release:
	scripts/release $(ARGS)

clean:
	$(CARGO) clean
	rm -rf dist
