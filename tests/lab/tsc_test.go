package main

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// KVM is loaded when the lab's kernel knows its TSC's frequency.
func TestKVMComesAfterTheTSC(t *testing.T) {
	if !lab.InLab() {
		return // other kernels don't say it like that, or not any more
	}
	const readAll = 3 // SYSLOG_ACTION_READ_ALL
	log := make([]byte, 1<<20)
	n, err := unix.Klogctl(readAll, log)
	if err != nil {
		t.Fatal(err)
	}
	log = log[:n]
	tsc, kvm := bytes.Index(log, []byte("Switched to clocksource tsc\n")), bytes.Index(log, []byte("kvm: Nested Paging enabled"))
	if tsc < 0 || kvm < tsc {
		t.Errorf("the TSC is in use from byte %d of the kernel's log on, KVM is there at %d\n%s", tsc, kvm, log)
	}
}
