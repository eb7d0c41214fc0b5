package main

import (
	"reflect"
	"testing"
)

func TestParseArgs(t *testing.T) {
	const keys = "disks= op= size=4m"
	a, err := parseArgs("op=read@0+512:op=flush:disks=vda+vdb", keys)
	want := args{"disks": {"vda+vdb"}, "op": {"read@0+512", "flush"}, "size": {"4m"}}
	if err != nil || !reflect.DeepEqual(a, want) {
		t.Fatalf("%v, %v", a, err)
	}
	if n, err := a.number("size"); n != 4<<20 || err != nil {
		t.Errorf("size is %d, %v", n, err)
	}
	for _, bad := range []string{"unknown=1", "op", ":", "op=1:"} {
		if _, err := parseArgs(bad, keys); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0": 0, "512": 512, "3k": 3072, "2M": 2 << 20, "1g": 1 << 30} {
		if n, err := parseSize(text); n != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", text, n, err, want)
		}
	}
	for _, bad := range []string{"-1", "k", "1x", "9999999999g", "1.5"} {
		if n, err := parseSize(bad); err == nil {
			t.Errorf("%q was read as %d", bad, n)
		}
	}
}

func TestEveryWorkloadsDefaultsAreUnderstood(t *testing.T) {
	for name, w := range workloads {
		if _, err := parseArgs("", w.keys); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := runOne("no-such"); err == nil {
		t.Error("an unknown workload ran")
	}
}
