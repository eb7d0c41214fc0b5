# The two commands for everybody:
#
#	make run    a Linux guest with four disks and a shell on its console
#	make test   everything that can be checked without waiting for a benchmark
#
# Both install what they need (Debian, as root) and fetch guest kernels into build/.

GO    ?= go
TESTS ?= ./...

# Series of the Debian kernels that guests boot.
KERNELS = 6.1,6.12

PACKAGES = ca-certificates qemu-system-x86 qemu-system-common busybox-static e2fsprogs fio acpica-tools iproute2 dmsetup gcc

.PHONY: build run test test-giouring check bench-boot bench-disks bench-congestion bench-sharedtags bench-drain bench-drain-lab bench-migrate bench-memory demo-migrate clean deps images

build:
	CGO_ENABLED=0 $(GO) build -o build/ebb .

# --- what the machine must have -----------------------------------------------

# One apt-get run, and none where all is there. Without root it is left to the user.
deps:
	@missing=$$(for p in $(PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "These Debian packages are missing: $$missing. Run as root: apt-get install" $$missing >&2; exit 1; fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

# apt knows which kernels there are only after an update.
images: deps
	@if [ ! -e build/kernel/6.1/vmlinux ] || [ ! -e build/kernel/6.12/vmlinux ]; then \
		apt-cache show linux-image-cloud-amd64 linux-image-6.12-cloud-amd64 >/dev/null 2>&1 || apt-get update -qq; fi
	@$(GO) run ./guest/build -kernel $(KERNELS)

# --- the main job ----------------------------------------------------------------

DISKS = build/run/disk1.img build/run/disk2.img build/run/disk3.img build/run/disk4.img

build/run/%.img:
	@mkdir -p build/run && truncate -s 256M $@

RUN = build/ebb run --name make-run --cpus 2 --memory 512M \
	--kernel build/vmlinux-6.1 --initrd build/initrd-6.1.cpio --append "console=ttyS0 quiet" \
	$(foreach d,$(DISKS),--disk path=$(d),serial=$(basename $(notdir $(d))))

# ebb check says whether this machine's KVM boots Linux; the lab's always does.
run: KERNELS = 6.1
run: build images $(DISKS)
	@if build/ebb check >/dev/null 2>&1; then $(RUN); else \
		echo "This machine's KVM can't boot Linux: running in the lab, a KVM host inside QEMU's emulator."; \
		$(GO) build -o build/lab ./tests/lab && build/lab -share build/run -- $(RUN); fi

# --- tests ------------------------------------------------------------------------

# One package at a time: those that boot guests want both cores.
test: KERNELS = 6.1,6.12
test: images check test-giouring
	EBB_MUST_RUN=1 $(GO) test -p 1 -count=1 -timeout 25m $(TESTS)

# The engine over a ring of the library giouring: an engine more in every test that runs over
# all of them. The library links to what Go doesn't export, hence the linker's flag.
test-giouring:
	$(GO) vet -tags giouring ./aio
	$(GO) test -count=1 -tags giouring -ldflags=-checklinkname=0 ./aio

check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

# --- benchmarks ---------------------------------------------------------------------

# Time from exec to user space, and memory: ebb beside QEMU, in one lab.
bench-boot: KERNELS = 6.1
bench-boot: build images
	$(GO) run ./tests/bench/boot

# Requests per second by the number of disks: ebb beside QEMU and a bare io_uring loop.
# An hour, on a machine with nothing else to do; `go run ./tests/bench/disks -quick` takes three minutes.
bench-disks: build deps
	$(GO) run ./tests/bench/disks

# More requests than an engine of fixed length takes, in the lab. Twenty minutes.
bench-congestion: KERNELS = 6.1
bench-congestion: build images
	$(GO) run ./tests/bench/congestion

# A fast and a slow disk on an engine with room for half of their requests, in the lab. Twenty minutes.
bench-sharedtags: KERNELS = 6.1
bench-sharedtags: build images
	$(GO) run ./tests/bench/sharedtags

# Every law of the drain on simulated disks. Ten minutes, the same on every machine.
bench-drain:
	$(GO) run ./tests/bench/drain

# The default law on real disks of many shapes, in the lab. Half an hour.
bench-drain-lab: KERNELS = 6.1
bench-drain-lab: build images
	$(GO) run ./tests/bench/drain -lab

# Live migrations of a guest that writes to a slow disk: ebb beside QEMU, in the lab where there is no KVM. Forty minutes.
bench-migrate: KERNELS = 6.1
bench-migrate: build images
	$(GO) run ./tests/bench/migrate

# The same once, between two network namespaces. Two minutes.
demo-migrate: KERNELS = 6.1
demo-migrate: build images
	$(GO) run ./tests/bench/migrate -demo

# How long a migration's memory takes without KVM, at this host's own speed. Half an hour.
bench-memory: KERNELS = 6.1
bench-memory: images
	$(GO) run ./tests/bench/memory

clean:
	rm -rf build
