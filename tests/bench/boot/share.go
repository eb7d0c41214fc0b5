package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ebb-vmm/ebb/guest"
)

// ownShare measures ebb from exec to exit with the real kernel and initrd, whose
// entry point has been replaced by an instruction that powers off. That includes
// taking the machine apart, so it is a little more than ebb's share of a boot.
func ownShare(ebb string, img guest.Image, images []string, dir string, rounds int) error {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		fmt.Println("exec to the guest's first instruction: not measured,", err)
		return nil
	}
	kernel := filepath.Join(dir, "vmlinux-poweroff")
	if err := patchEntry(img.Kernel.Vmlinux, kernel); err != nil {
		return err
	}
	var times []time.Duration
	for i := range rounds + 1 {
		argv := []string{"run", "--kernel", kernel, "--initrd", img.Initrd, "--memory", fmt.Sprintf("%dM", memoryMiB), "--console", "none"}
		for _, f := range images {
			argv = append(argv, "--disk", "path="+f)
		}
		started := time.Now()
		if out, err := exec.Command(ebb, argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", ebb, err, out)
		}
		if i > 0 {
			times = append(times, time.Since(started))
		}
	}
	fmt.Printf("exec to the guest's first instruction and exit, with %d disks, %d MiB, vmlinux and initrd: %s\n", disks, memoryMiB, summary(times))
	return nil
}

// powerOff is 32-bit code: mov $0x604,%dx; mov $0x3400,%ax; out %ax,%dx; hlt.
var powerOff = []byte{0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4}

// patchEntry copies a kernel and replaces the code at its PVH entry point. It also
// hides that it is Linux, so that a KVM which can't boot Linux runs it.
func patchEntry(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	var entry uint64
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes := data[p.Off : p.Off+p.Filesz]
		// A note is name size, description size, type, name, description.
		const pvhNote = "\x04\x00\x00\x00\x04\x00\x00\x00\x12\x00\x00\x00Xen\x00"
		const pvhNote64 = "\x04\x00\x00\x00\x08\x00\x00\x00\x12\x00\x00\x00Xen\x00"
		for _, head := range []string{pvhNote, pvhNote64} {
			if i := bytes.Index(notes, []byte(head)); i >= 0 {
				entry = uint64(binary.LittleEndian.Uint32(notes[i+len(head):]))
			}
		}
		copy(notes, bytes.ReplaceAll(notes, []byte("Linux\x00"), []byte("Other\x00")))
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && entry >= p.Paddr && entry-p.Paddr < p.Filesz {
			copy(data[p.Off+entry-p.Paddr:], powerOff)
			return os.WriteFile(to, data, 0o600)
		}
	}
	return errors.New(from + " has no PVH entry point")
}
