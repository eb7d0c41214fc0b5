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

// ownShare measures ebb from exec to the guest's first instructions, and to its own exit, with
// the real kernel and initrd. The code at the kernel's entry point has been replaced: it
// writes a byte to the serial port, which is ebb's standard output, and powers off.
func ownShare(ebb string, img guest.Image, images []string, dir string, rounds int) error {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		fmt.Println("exec to the guest's first instruction: not measured,", err)
		return nil
	}
	kernel := filepath.Join(dir, "vmlinux-poweroff")
	if err := patchEntry(img.Kernel.Vmlinux, kernel); err != nil {
		return err
	}
	var first, exit []time.Duration
	for i := range rounds + 1 {
		argv := []string{"run", "--kernel", kernel, "--initrd", img.Initrd, "--memory", fmt.Sprintf("%dM", memoryMiB), "--console", "stdio"}
		for _, f := range images {
			argv = append(argv, "--disk", "path="+f)
		}
		cmd := exec.Command(ebb, argv...)
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		console, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		started := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		kill := time.AfterFunc(bootDeadline, func() { cmd.Process.Kill() })
		_, readErr := console.Read(make([]byte, 1))
		ran := time.Since(started)
		err = errors.Join(readErr, cmd.Wait())
		kill.Stop()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", ebb, err, &complaints)
		}
		if i > 0 {
			first, exit = append(first, ran), append(exit, time.Since(started))
		}
	}
	fmt.Printf("with %d disks, %d MiB, vmlinux and initrd: exec to the guest's first output: %s\n", disks, memoryMiB, summary(first))
	fmt.Printf("and to ebb's exit: %s\n", summary(exit))
	return nil
}

// firstCode is 32-bit code: mov $0x3f8,%dx; mov $'.',%al; out %al,%dx;
// mov $0x604,%dx; mov $0x3400,%ax; out %ax,%dx; hlt.
var firstCode = []byte{0x66, 0xba, 0xf8, 0x03, 0xb0, '.', 0xee, 0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4}

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
			copy(data[p.Off+entry-p.Paddr:], firstCode)
			return os.WriteFile(to, data, 0o600)
		}
	}
	return errors.New(from + " has no PVH entry point")
}
