package cli

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/cli/control"
	"github.com/ebb-vmm/ebb/machine"
)

func TestPrintStats(t *testing.T) {
	held, drain := 0, 8
	var b strings.Builder
	noError(t, printStats(&b, control.Stats{
		Engine: control.EngineStats{Kind: "uring", Capacity: 512, Demand: 300, InFlight: 7, Lent: 2, WrittenOff: 1},
		Disks: []control.DiskStats{
			{ID: "vda", Share: 4, Read: control.ClassStats{Requests: 10, Bytes: 5 << 20, Errors: 1, Latency: control.Latency{P50: 90 * time.Microsecond, P99: 1234567, Max: 2345678901}}},
			{ID: "data", InFlight: 7, Window: &held, Windows: map[string]int{"pause": 0, "limit": 0, "drain": 3}, Lent: 3, WrittenOff: 5, Kept: 1, Lost: true, GraceP95: 12 * time.Millisecond},
			{ID: "c", Window: &drain},
		},
	}))
	want := `engine uring: capacity 512, demand 300, in flight 7, lent 2, written off 1

  DISK  IN FLIGHT            WINDOW  SHARE  LENT  WRITTEN OFF  KEPT    LOST  DRAIN P95
   vda          0                 -      4     0            0     0       -          -
  data          7  0 (limit, pause)      0     3            5     1  writes       12ms
     c          0                 8      0     0            0     0       -          -

  DISK  CLASS  REQUESTS  BYTES  ERRORS   P50     P99    MAX
   vda   read        10     5M       1  90µs  1.23ms  2.35s
   vda  write         0      0       0     -       -      -
   vda   long         0      0       0     -       -      -
  data   read         0      0       0     -       -      -
  data  write         0      0       0     -       -      -
  data   long         0      0       0     -       -      -
     c   read         0      0       0     -       -      -
     c  write         0      0       0     -       -      -
     c   long         0      0       0     -       -      -
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestStatsOfDisk(t *testing.T) {
	got := diskStats(machine.DiskStats{ID: "vda", Lost: true, PortStats: aio.PortStats{
		Read: aio.ClassStats{Requests: 1, Bytes: 2, Errors: 3, Latency: aio.Latency{P50: 1, P99: 2, P999: 3, Max: 4}}, Write: aio.ClassStats{Requests: 4, Bytes: 5, Errors: 6},
		Long: aio.ClassStats{Requests: 7, Bytes: 8, Errors: 9}, InFlight: 10, Window: 11,
		Windows: [...]int{aio.Unlimited, 11, aio.Unlimited, 0, aio.Unlimited}, Demand: 256, WrittenOff: 2, Kept: 3, Reserve: 4, Share: 6,
		Grace: aio.Grace{P95: time.Millisecond},
	}})
	eleven := 11
	want := control.DiskStats{
		ID: "vda", InFlight: 10, Window: &eleven, Windows: map[string]int{"drain": 11, "group": 0},
		Demand: 256, WrittenOff: 2, Kept: 3, Lost: true, Reserve: 4, Share: 6, Lent: 4, GraceP95: time.Millisecond,
		Read: control.ClassStats{Requests: 1, Bytes: 2, Errors: 3, Latency: control.Latency{P50: 1, P99: 2, P999: 3, Max: 4}}, Write: control.ClassStats{Requests: 4, Bytes: 5, Errors: 6},
		Long: control.ClassStats{Requests: 7, Bytes: 8, Errors: 9},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if w := diskStats(machine.DiskStats{PortStats: aio.PortStats{Window: aio.Unlimited}}).Window; w != nil {
		t.Errorf("no bound is %d", *w)
	}
}

func TestLatency(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "-", 1: "1ns", 999: "999ns", 1234: "1.23µs", 999999: "1ms", 123456789: "123ms", 90 * time.Second: "1m30s",
	} {
		if got := latency(d); got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 512: "512", 1 << 10: "1K", 1536: "1.5K", 512 << 20: "512M", 5 << 40: "5T"} {
		if got := size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for in, want := range map[string]uint64{"512": 512, "1K": 1024, "1.5G": 1536 << 20, "10g": 10 << 30, "2T": 2 << 40} {
		if got, err := parseDiskSize(in); got != want || err != nil {
			t.Errorf("%s is %d, error %v; want %d", in, got, err, want)
		}
	}
}
