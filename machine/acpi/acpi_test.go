package acpi

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

func testMachine(cpus int) Machine {
	return Machine{
		CPUs: cpus, LocalAPIC: 0xfee00000, IOAPIC: 0xfec00000,
		ECAM: 0xe0000000, Buses: 4, MMIOFirst: 0xc0000000, MMIOEnd: 0xe0000000,
		SCI: 9, PM1Event: 0x600, PM1Control: 0x604, ResetPort: 0xcf9, ResetValue: 6, SleepTypeS5: 5,
		Serial: 0x3f8, SerialIRQ: 4, CMOS: 0x70, CMOSIRQ: 8, PanicPort: 0x505, IRQ0ToPin2: true,
	}
}

// tables follows the pointers from the RSDP as a guest would.
func tables(t *testing.T, image []byte, base uint32, rsdp uint64) map[string][]byte {
	t.Helper()
	sum := func(b []byte) (s uint8) {
		for _, v := range b {
			s += v
		}
		return s
	}
	at := func(addr uint64) []byte {
		b := image[addr-uint64(base):]
		b = b[:binary.LittleEndian.Uint32(b[4:])]
		if s := sum(b); s != 0 {
			t.Errorf("%.4s: checksum is off by %d", b, s)
		}
		return b
	}
	r := image[rsdp-uint64(base):]
	if string(r[:8]) != "RSD PTR " || sum(r[:20]) != 0 || sum(r[:36]) != 0 {
		t.Fatalf("bad RSDP % x", r[:36])
	}
	found := map[string][]byte{}
	xsdt := at(binary.LittleEndian.Uint64(r[24:]))
	for p := xsdt[headerSize:]; len(p) > 0; p = p[8:] {
		b := at(binary.LittleEndian.Uint64(p))
		found[string(b[:4])] = b
	}
	found["DSDT"] = at(binary.LittleEndian.Uint64(found["FACP"][fadtXDSDT:]))
	return found
}

func TestTablesAreLinkedAndSummed(t *testing.T) {
	const base = 0xe0000
	image, rsdp, err := Build(testMachine(3), base, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	found := tables(t, image, base, rsdp)
	for _, want := range []string{"FACP", "APIC", "MCFG", "DSDT"} {
		if found[want] == nil {
			t.Errorf("no %s", want)
		}
	}
	cpus := 0
	for b := found["APIC"][headerSize+8:]; len(b) > 0; b = b[b[1]:] {
		if b[0] == 0 {
			cpus++
		}
	}
	if cpus != 3 {
		t.Errorf("MADT has %d processors, want 3", cpus)
	}
}

func TestTablesMustFit(t *testing.T) {
	if _, _, err := Build(testMachine(255), 0xe0000, 1024); err == nil {
		t.Error("255 processors fitted into 1 KiB")
	}
	if _, _, err := Build(testMachine(255), 0xe0000, 64<<10); err != nil {
		t.Error(err)
	}
}

// Linux asks _OSC by this UUID (PCI Firmware Specification 3.3, 4.5.1) whether it may
// control hotplug; with another one its slots stay dead.
func TestCapabilitiesUUID(t *testing.T) {
	uuid := []byte{0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66}
	if dsdt := buildDSDT(testMachine(1)); !bytes.Contains(dsdt, []byte("_OSC")) || !bytes.Contains(dsdt, uuid) {
		t.Error("the PCI root has no _OSC for PCI Express")
	}
}

// TestDisassembles has the reference compiler read every table and compile the
// DSDT back to the same bytes.
func TestDisassembles(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		lab.SkipTest(t, "iasl (Debian package acpica-tools) is not installed")
	}
	const base = 0xe0000
	image, rsdp, err := Build(testMachine(2), base, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	for sig, b := range tables(t, image, base, rsdp) {
		dir := t.TempDir()
		file := filepath.Join(dir, sig+".aml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) string {
			cmd := exec.Command(iasl, args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("iasl %v: %v\n%s", args, err, out)
			}
			return string(out)
		}
		if out := run("-d", file); strings.Contains(out, "Error") || strings.Contains(out, "Invalid") {
			t.Errorf("%s: %s", sig, out)
		}
		if sig != "DSDT" {
			continue
		}
		if out := run("-p", "again", "DSDT.dsl"); !strings.Contains(out, "0 Errors") {
			t.Errorf("recompiling the DSDT: %s", out)
		}
		again, err := os.ReadFile(filepath.Join(dir, "again.aml"))
		if err != nil {
			t.Fatal(err)
		}
		if string(again[headerSize:]) != string(b[headerSize:]) {
			t.Errorf("the DSDT recompiles to other bytes:\n% x\n% x", b[headerSize:], again[headerSize:])
		}
	}
}
