package cli

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/machine"
)

func TestEscapes(t *testing.T) {
	for _, c := range []struct {
		name  string
		reads []string
		want  string
		do    action // of the last read
	}{
		{"plain", []string{"abc"}, "abc", keepRunning},
		{"end", []string{"ab\x01x"}, "ab", endGuest},
		{"end, capital", []string{"\x01X"}, "", endGuest},
		{"the rest is dropped", []string{"ab\x01xcd\x01h"}, "ab", endGuest},
		{"over two reads", []string{"ab\x01", "x"}, "ab", endGuest},
		{"help", []string{"a\x01hb"}, "ab", showHelp},
		{"help by question mark", []string{"\x01?"}, "", showHelp},
		{"help, then end", []string{"\x01h\x01x"}, "", endGuest},
		{"Ctrl-A itself", []string{"a\x01\x01b"}, "a\x01b", keepRunning},
		{"Ctrl-A by letter", []string{"\x01a"}, "\x01", keepRunning},
		{"Ctrl-A over two reads", []string{"\x01", "\x01", "x"}, "\x01x", keepRunning},
		{"twice Ctrl-A, then x", []string{"\x01\x01x"}, "\x01x", keepRunning},
		{"thrice Ctrl-A, then x", []string{"\x01\x01\x01x"}, "\x01", endGuest},
		{"an unknown key", []string{"a\x01zb"}, "ab", keepRunning},
		{"pending", []string{"a\x01"}, "a", keepRunning},
		{"empty", []string{""}, "", keepRunning},
	} {
		var (
			keys escapes
			got  []byte
			do   action
		)
		for _, r := range c.reads {
			var out []byte
			out, do = keys.feed([]byte(r))
			got = append(got, out...)
		}
		if string(got) != c.want || do != c.do {
			t.Errorf("%s: %q and %d, want %q and %d", c.name, got, do, c.want, c.do)
		}
	}
}

func TestSplitCommas(t *testing.T) {
	for in, want := range map[string][]string{
		"":          {""},
		"a":         {"a"},
		"a,b":       {"a", "b"},
		"a,,b":      {"a,b"},
		"a,,,b":     {"a,", "b"},
		"a,,,,b":    {"a,,b"},
		",":         {"", ""},
		",,":        {","},
		"p=a,,b,q=": {"p=a,b", "q="},
	} {
		if got := splitCommas(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseDisks(t *testing.T) {
	got, err := parseDisks([]string{
		"path=a.img",
		"path=b,,c.img,id=data,serial=S-1,readonly,direct,queues=2,queue-size=64",
		"id=x,path=c=d.img,readonly=off,direct=on",
		"path=d,iops=1000,bps=20M:100M,weight=250,error=report",
		"path=e,iops=1:5,group=slow,error=stop,format=raw",
	})
	noError(t, err)
	want := []machine.Disk{
		{ID: "vda", Path: "a.img"},
		{ID: "data", Path: "b,c.img", Serial: "S-1", ReadOnly: true, Direct: true, Queues: 2, QueueSize: 64},
		{ID: "x", Path: "c=d.img", Direct: true},
		{ID: "vdd", Path: "d", Limits: aio.Limits{IOPS: aio.Rate{PerSecond: 1000}, BPS: aio.Rate{PerSecond: 20 << 20, Burst: 100 << 20}},
			Weight: 250, Errors: blk.ErrorsReport},
		{ID: "vde", Path: "e", Limits: aio.Limits{IOPS: aio.Rate{PerSecond: 1, Burst: 5}}, Group: "slow", Errors: blk.ErrorsStop, Raw: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, err := parseDisks(slices.Repeat([]string{"path=a"}, machine.MaxDisks)); err != nil || len(got) != machine.MaxDisks || got[63].ID != "vdbl" {
		t.Errorf("%d disks, %v", len(got), err)
	}
}

func TestParseMemory(t *testing.T) {
	for in, want := range map[string]uint64{
		"16M": 16 << 20, "512M": 512 << 20, "512m": 512 << 20, "512MiB": 512 << 20, "512MB": 512 << 20, "4G": 4 << 30, "1.5G": 3 << 29,
		"5g": 5 << 30, "1T": 1 << 40, "1024G": 1 << 40, "16777216": 16 << 20, "16384K": 16 << 20, "0512M": 512 << 20,
	} {
		if got, err := parseMemory(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "M", "x", "512", "15M", "17M", "1.3G", "1025G", "2T", "8E", "-1G", "1G1", "1 G G", "0", "NaN", "InfG", "1e30"} {
		if got, err := parseMemory(in); !errors.As(err, &usageError{}) {
			t.Errorf("%q: %d, %v: no usage error", in, got, err)
		}
	}
}

func TestParseConfig(t *testing.T) {
	got, err := parseConfig("# a VM\n\n  kernel  /boot/vmlinuz \n--memory=4G\r\nappend console=ttyS0 root=/dev/vda\nappend = a=b  c\ndisk path=a b.img,id=x\n-cpus\t2\nno-reboot\nname=\n")
	noError(t, err)
	want := []setting{
		{3, "kernel", "/boot/vmlinuz"}, {4, "memory", "4G"}, {5, "append", "console=ttyS0 root=/dev/vda"}, {6, "append", "a=b  c"},
		{7, "disk", "path=a b.img,id=x"}, {8, "cpus", "2"}, {9, "no-reboot", ""}, {10, "name", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []string{"=x", "Kernel x", "kernel: x", "---cpus 1", "9", "[vm]", `"kernel" x`} {
		if got, err := parseConfig("cpus 1\n" + bad); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine(errors.Join(errors.New("one"), nil, errors.New("two"))); got != "one; two" {
		t.Errorf("%q", got)
	}
}
