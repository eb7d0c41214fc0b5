package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
)

// Everything that can be refused before a guest exists: one sentence that names
// the option and the file, nothing left open.
func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	disks := diskImages(t, 1)
	good := Config{Memory: guestMemory, CPUs: 1, Kernel: kernelFile(t, powerOff, spin), Disks: disks}
	for name, c := range map[string]struct {
		change func(c *Config)
		words  []string
	}{
		"config":             {func(c *Config) { c.CPUs = 0 }, []string{"--cpus"}},
		"no kernel":          {func(c *Config) { c.Kernel = missing }, []string{"--kernel", missing}},
		"kernel not named":   {func(c *Config) { c.Kernel = "" }, []string{"--kernel"}},
		"kernel that's none": {func(c *Config) { c.Kernel = disks[0].Path }, []string{"--kernel", disks[0].Path, "not a kernel"}},
		"no initrd":          {func(c *Config) { c.Initrd = missing }, []string{"--initrd", missing}},
		"initrd empty":       {func(c *Config) { c.Initrd = empty }, []string{"--initrd", empty, "empty"}},
		"initrd a directory": {func(c *Config) { c.Initrd = dir }, []string{"--initrd", dir, "directory"}},
		"no disk": {func(c *Config) {
			c.Disks = append(diskImages(t, 1), Disk{ID: "b", Path: missing})
		}, []string{"--disk b", missing}},
		"a disk twice": {func(c *Config) {
			c.Disks = []Disk{{ID: "a", Path: disks[0].Path}, {ID: "b", Path: disks[0].Path}}
		}, []string{"--disk b", disks[0].Path}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			before := openFiles(t)
			m, err := New(cfg)
			if err == nil {
				m.Close()
				t.Fatal("no error")
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %q, want one sentence with %q", err, w)
				}
			}
			wantFiles(t, before, "after the failure")
		})
	}
}

// The caller's configuration is the caller's.
func TestNewLeavesItsConfigAlone(t *testing.T) {
	needKVM(t)
	disks := diskImages(t, 1)
	m, err := New(Config{Memory: guestMemory, CPUs: 3, Kernel: kernelFile(t, powerOff, spin), Disks: disks})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if disks[0].Queues != 0 || m.disks[0].cfg.Queues != 3 {
		t.Errorf("queues: the caller's %d, the machine's %d; want 0 and one per vCPU", disks[0].Queues, m.disks[0].cfg.Queues)
	}
}

// Probe says whether a Linux kernel is taken, and New agrees.
func TestLinuxNeedsWhatProbeLooksFor(t *testing.T) {
	needKVM(t)
	h, probed := Probe()
	switch {
	case probed == nil && (h.MaxCPUs < 1 || h.MaxCPUs > MaxCPUs):
		t.Errorf("%d vCPUs", h.MaxCPUs)
	case probed != nil && !errors.Is(probed, errSoftwareKVM):
		t.Fatal(probed)
	}
	path := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(path, boottest.BzImage{Payload: make([]byte, 1024)}.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	m, err := New(Config{Memory: guestMemory, CPUs: 1, Kernel: path})
	if err == nil {
		m.Close()
	}
	if !errors.Is(err, probed) {
		t.Errorf("New: %v, Probe: %v", err, probed)
	}
	wantFiles(t, before, "after New")
}
