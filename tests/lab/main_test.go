package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// This package's tests need a KVM that boots Linux guests, for no other reason than to try lab.Main.
func TestMain(m *testing.M) { lab.Main(m, nil, lab.Options{}) }

func TestRunsWhereLinuxGuestsBoot(t *testing.T) {
	if !lab.InLab() && !lab.KVMBootsLinux() {
		t.Fatal("neither in a lab nor on a machine whose KVM boots Linux")
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer kvm.Close()
	const getAPIVersion = 0xae00
	if v, err := unix.IoctlRetInt(int(kvm.Fd()), getAPIVersion); v != 12 || err != nil {
		t.Errorf("KVM_GET_API_VERSION is %d, %v", v, err)
	}
}
