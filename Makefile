# Makes a machine ready, builds, runs, tests and installs cofferdam. `make help` lists the targets.
# cargo does the building; what is here installs what cargo needs, and calls it.

PREFIX ?= /usr/local
# Where Rust has no musl and rustup gets none, the program is built with glibc: as good, but half a millisecond slower to start.
MUSL := x86_64-unknown-linux-musl
TARGET = $(shell test -d "$$(PATH=$(PATH) rustc --print sysroot 2>/dev/null)/lib/rustlib/$(MUSL)" && echo $(MUSL) || echo x86_64-unknown-linux-gnu)
export CARGO_BUILD_TARGET ?= $(TARGET)
BINARY = $(or $(CARGO_TARGET_DIR),target)/$(CARGO_BUILD_TARGET)/release/cofferdam
SOURCES := Cargo.toml Cargo.lock build.rs first.ld .cargo/config.toml $(shell find src shims -name '*.rs')
COMMIT := $(or $(shell git rev-parse --short HEAD 2>/dev/null),unknown)

# Where install puts what. Each verb has its man page; a test compares the list with the program.
BIN := $(DESTDIR)$(PREFIX)/bin
SHARE := $(DESTDIR)$(PREFIX)/share
# Debian's fish does not look below /usr/local.
FISH := $(if $(filter /usr/local,$(PREFIX)),$(DESTDIR)/usr/share,$(SHARE))
COMPLETIONS := $(SHARE)/bash-completion/completions/cofferdam $(SHARE)/zsh/site-functions/_cofferdam \
	$(FISH)/fish/vendor_completions.d/cofferdam.fish
MAN := $(SHARE)/man/man8
ENGINES := $(SHARE)/cofferdam
VERBS := check completion create delete events exec features kill list mounts pause ps resume run spec start state \
	stats update
PAGES := $(MAN)/cofferdam.8 $(VERBS:%=$(MAN)/cofferdam-%.8)

# A C linker, the C library and libseccomp as static archives, and what cargo checks its registry by.
PACKAGES := ca-certificates gcc libc6-dev libseccomp-dev
# `cofferdam ps` calls ps(1); a container of an ordinary user has its ids mapped by newuidmap(1); shells complete calls.
TEST_PACKAGES := procps iproute2 uidmap zsh fish
ORACLES := runc crun
# What libFuzzer is compiled with.
FUZZ_PACKAGES := g++

# rustup installs for one user, and often into no path that root has; sudo changes the home as well.
USER_HOME := $(shell getent passwd $(or $(SUDO_USER),$(shell id -u)) | cut -d: -f6)
export PATH := $(PATH):$(HOME)/.cargo/bin:$(USER_HOME)/.cargo/bin
ifneq ($(wildcard $(USER_HOME)/.rustup),)
export RUSTUP_HOME ?= $(USER_HOME)/.rustup
endif

.DEFAULT_GOAL := help
.PHONY: help setup hooks build run test test-cli torture stress soak oracle control integration integration-nightly conformance fuzz lint-deps bench order differential install uninstall clean
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r target what; do \
		printf '  make %-19s %s\n' "$$target" "$$what"; done

setup: ## install what the build needs and this machine lacks
	@[ "$$(uname -sm)" = "Linux x86_64" ] || \
		{ echo "make: cofferdam runs on Linux on x86_64, this is $$(uname -sm)" >&2; exit 1; }
	@$(call install_packages,$(PACKAGES))
	@command -v cargo >/dev/null || \
		{ echo "make: cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@[ "$(TARGET)" = $(MUSL) ] || rustup target add $(MUSL) || echo "make: no $(MUSL) here: building with glibc" >&2

hooks: ## have git check the form of commit messages in this clone
	git config core.hooksPath .githooks

build: setup ## build the program, one static binary
	COFFERDAM_COMMIT=$(COMMIT) cargo build --release --locked

run: build ## run the container of config-samples/hello
	@config-samples/hello/run.sh $(BINARY)

# All checks run, whichever of them fail. Tests that do not apply to this machine are reported as ignored, with the reason.
test: setup ## check the format, lint, run all tests and the OCI validation suite
	@$(call install_packages,$(TEST_PACKAGES))
	@failed=; note() { [ $$? = 0 ] || failed="$$failed $$1"; }; \
	( $(call component,fmt,rustfmt,--check) ); note format; \
	( $(call component,clippy,clippy,--all-targets --locked -- -D warnings) ); note clippy; \
	RUNTIME= cargo test --locked --no-fail-fast; note tests; \
	integration/conformance/run.sh; note conformance; \
	if [ -n "$$failed" ]; then echo "make: these checks have failed:$$failed" >&2; exit 1; fi; \
	echo "make: all checks have passed"

test-cli: setup ## run the black-box tests on the program that $RUNTIME names, by default this one
	@$(call install_packages,$(TEST_PACKAGES))
	cargo test --locked --test main

torture: setup ## have each system call be the last, fail, be waited at, meet a full disk; have attacks race and hundreds of commands meet
	@$(call install_packages,$(TEST_PACKAGES))
	COFFERDAM_TORTURE=1 cargo test --locked --test main -- \
		killed:: records:: shortages:: systemd::a_job_whose_end together:: attacks::races attacks::places attacks::joining \
		attacks::descriptors attacks::refused attacks::odd_values attacks::binary attacks::waits --nocapture

stress: setup ## sixteen workers call random verbs on eight containers until a thousand were created
	@$(call install_packages,$(TEST_PACKAGES))
	COFFERDAM_TORTURE=1 cargo test --locked --test main together::a_mixture -- --nocapture

soak: setup ## one container a second for MINUTES=10 minutes: nothing of the host grows
	@$(call install_packages,$(TEST_PACKAGES))
	COFFERDAM_SOAK=$(or $(MINUTES),10) cargo test --locked --test main soak:: -- --nocapture

oracle: setup ## prove the black-box tests: run them on runc and crun
	@$(call install_packages,$(TEST_PACKAGES) $(ORACLES))
	@failed=; for name in $(ORACLES); do \
		RUNTIME=$$(PATH=$$PATH:/usr/sbin command -v $$name) cargo test --locked --test main || failed="$$failed $$name"; \
	done; [ -z "$$failed" ] || { echo "make: tests fail on:$$failed" >&2; exit 1; }

control: setup ## prove the attacks: runc 1.1.5, of Debian 12, must fail those that it is known to fail
	@$(call install_packages,$(TEST_PACKAGES) runc)
	COFFERDAM_CONTROL=1 RUNTIME=$${RUNTIME:-$$(PATH=$$PATH:/usr/sbin command -v runc)} \
		cargo test --locked --test main attacks::control -- --nocapture

# Engines run in a guest, under QEMU. What CI leaves for the night is run in two boots, each with a driver and results of its own.
NIGHTLY := conformance apparmor cgroups contrib buildah containerd cri podman-rootless root rootless systemd
NIGHTLY_CGROUPFS := cli containerd cri docker podman
integration: setup ## run engines on it in a guest; SUITE="podman docker" runs these only
	@integration/run.sh $(SUITE)

integration-nightly: setup ## run the suites that CI leaves out, with both cgroup drivers
	@export LIMIT=7200; failed=0; \
	DRIVER=systemd RESULTS=$(CURDIR)/target/integration/systemd integration/run.sh $(NIGHTLY) || failed=1; \
	DRIVER=cgroupfs RESULTS=$(CURDIR)/target/integration/cgroupfs integration/run.sh $(NIGHTLY_CGROUPFS) || failed=1; \
	exit $$failed

conformance: setup ## run the OCI validation suite alone
	@integration/conformance/run.sh

fuzz: setup ## run each fuzz target for FUZZ_SECONDS (60); TARGETS="config state" runs these only
	@$(call install_packages,$(FUZZ_PACKAGES))
	@fuzz/run.sh $(TARGETS)

lint-deps: setup ## check licences, sources and known faults of the crates; without cargo-deny it is built first
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check

bench: build ## measure it, crun, runc and what the kernel needs; QUICK=1 tries that out in a minute
	@$(call install_packages,$(ORACLES))
	@PATH=$$PATH:/usr/sbin integration/bench/run.sh

order: setup ## find out anew which functions short commands call, for first.ld
	@ORDER=1 integration/bench/run.sh

differential: build ## compare it with runc and crun on made configs for SECONDS (60) or COUNT of them; SEED= and CONFIG= repeat
	@$(call install_packages,$(ORACLES))
	@SEED=$(SEED) COUNT=$(COUNT) CONFIG=$(CONFIG) integration/differential/run.sh $(or $(SECONDS),60)

install: $(BINARY) ## install program, completions, man pages, files for engines below $(DESTDIR)$(PREFIX), by default /usr/local
	install -D -m 755 $(BINARY) $(BIN)/cofferdam
	install -d $(dir $(COMPLETIONS)) $(MAN)
	$(BINARY) completion bash >$(word 1,$(COMPLETIONS))
	$(BINARY) completion zsh >$(word 2,$(COMPLETIONS))
	$(BINARY) completion fish >$(word 3,$(COMPLETIONS))
	$(BINARY) man $(MAN)
	chmod 644 $(COMPLETIONS) $(PAGES)
	install -d $(ENGINES)
	for file in contrib/*; do sed 's#/usr/local/bin#$(PREFIX)/bin#' $$file >$(ENGINES)/$${file##*/}; done
	chmod 644 $(ENGINES)/*
	@echo "make: configuration for engines is in $(ENGINES); docs/engines.md says where it goes, and so do the first lines of most files"

uninstall: ## remove what install has installed
	rm -f $(BIN)/cofferdam $(COMPLETIONS) $(PAGES)
	rm -rf $(ENGINES)

clean: ## remove all that was built
	cargo clean

$(BINARY): $(SOURCES)
	$(MAKE) build

# Installs those of the packages $(1) that are missing. With none missing it changes nothing.
define install_packages
	missing=; \
	for package in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "make: no apt-get here; install by hand what Debian calls:$$missing, then call cargo build --release" >&2; exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
		echo "make: packages are missing, and only root may install them: apt-get install$$missing" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	echo "make: apt-get install$$missing"; \
	apt-get -q update </dev/null || echo "make: apt-get update: not all lists are fresh" >&2; \
	apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends $$missing </dev/null
endef

# Runs cargo $(1) $(3). Without its component $(2) less is checked, which CI must not pass over.
define component
	if cargo $(1) --version >/dev/null 2>&1; then \
		echo "cargo $(1) $(3)"; cargo $(1) $(3); \
	else \
		echo "make: SKIPPED cargo $(1): get it by: rustup component add $(2)" >&2; [ "$$CI" != true ]; \
	fi
endef
