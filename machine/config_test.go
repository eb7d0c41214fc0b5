package machine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/machine/memory"
)

func TestConfigCheck(t *testing.T) {
	disks := func(n int) (d []Disk) {
		for i := range n {
			d = append(d, Disk{ID: fmt.Sprint(i)})
		}
		return d
	}
	good := Config{Memory: 512 << 20, CPUs: 2, Disks: disks(2)}
	for name, c := range map[string]struct {
		change func(c *Config)
		words  string // of the error; empty: none
	}{
		"good":             {func(*Config) {}, ""},
		"least":            {func(c *Config) { c.Memory, c.CPUs, c.Disks = MinMemory, 1, nil }, ""},
		"most":             {func(c *Config) { c.Memory, c.CPUs, c.Disks = MaxMemory, MaxCPUs, disks(MaxDisks) }, ""},
		"no CPUs":          {func(c *Config) { c.CPUs = 0 }, "--cpus"},
		"negative CPUs":    {func(c *Config) { c.CPUs = -1 }, "--cpus"},
		"too many CPUs":    {func(c *Config) { c.CPUs = MaxCPUs + 1 }, "255 vCPUs"},
		"no memory":        {func(c *Config) { c.Memory = 0 }, "--memory"},
		"too little":       {func(c *Config) { c.Memory = MinMemory - memory.Alignment }, "14 MiB of memory"},
		"too much":         {func(c *Config) { c.Memory = MaxMemory + memory.Alignment }, "--memory"},
		"most of all":      {func(c *Config) { c.Memory = ^uint64(0) }, "18446744073709551615 bytes of memory"},
		"odd size":         {func(c *Config) { c.Memory += 1 << 20 }, "multiple of 2 MiB"},
		"odder size":       {func(c *Config) { c.Memory++ }, "536870913 bytes of memory"},
		"too many disks":   {func(c *Config) { c.Disks = disks(MaxDisks + 1) }, "65 disks"},
		"no slots":         {func(c *Config) { c.HotplugSlots = 0 }, ""},
		"most slots":       {func(c *Config) { c.HotplugSlots = MaxHotplugSlots }, ""},
		"too many slots":   {func(c *Config) { c.HotplugSlots = MaxHotplugSlots + 1 }, "9 hotplug slots are not possible: give 0 to 8 with --hotplug-slots"},
		"negative slots":   {func(c *Config) { c.HotplugSlots = -1 }, "-1 hotplug slots"},
		"the same id":      {func(c *Config) { c.Disks = append(disks(3), Disk{ID: "1"}) }, `the id "1"`},
		"two without id":   {func(c *Config) { c.Disks = []Disk{{}, {}} }, `the id ""`},
		"ids by case":      {func(c *Config) { c.Disks = []Disk{{ID: "a"}, {ID: "A"}} }, ""},
		"one path, two id": {func(c *Config) { c.Disks = []Disk{{ID: "a", Path: "x"}, {ID: "b", Path: "x"}} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := cfg.check()
			switch {
			case c.words == "" && err != nil:
				t.Error(err)
			case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
				t.Errorf("error %v, want one with %q", err, c.words)
			}
		})
	}
}

func TestDiskName(t *testing.T) {
	for i, want := range map[int]string{0: "vda", 1: "vdb", 25: "vdz", 26: "vdaa", 27: "vdab", 51: "vdaz", 52: "vdba", 63: "vdbl", 701: "vdzz", 702: "vdaaa"} {
		if got := DiskName(i); got != want {
			t.Errorf("disk %d: %s, want %s", i, got, want)
		}
	}
}
