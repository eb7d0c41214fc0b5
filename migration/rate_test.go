package migration

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/ebb-vmm/ebb/migration/ram"
)

// A guest of which little is not zeroes sends little in each pass, and the first looks at all of it: that is not the link's rate.
func TestSmallGuest(t *testing.T) {
	w := newWorld(t, "vda")
	held := errors.New("it came so far")
	w.breakAt = func(step string) error {
		if step == "sync" { // in HOLD
			return held
		}
		return nil
	}
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
	clear(g.memory[0].Bytes[33*ram.PageSize:])
	g.writes = 1<<33 - 2 // the other 32: 128 KiB
	var once sync.Once
	g.slow = func() { once.Do(func() { time.Sleep(100 * time.Millisecond) }) } // for the first look: 1 MiB a second
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda"), Options{
		Streams: MaxStreams, // so that one of the first messages there and back is fast
		Limits:  Limits{Downtime: 50 * time.Millisecond, Stall: 150 * time.Millisecond, Timeout: patience},
	}, nil)
	if !errors.Is(r.source, held) {
		t.Errorf("%v", r.source)
	}
	w.atSource()
}

// A slow link is not taken for a fast one, whatever fits into the buffers before it.
func TestSlowLink(t *testing.T) {
	const perSecond, burst = 1 << 20, 16 << 10
	limit := rate.NewLimiter(perSecond, burst)
	through := func(address string) string {
		return relay(t, address, func(a, b net.Conn) {
			go copySlowly(b, a, limit)
			go func() { _, _ = io.Copy(a, b); a.Close() }()
		})
	}
	w := newWorld(t, "vda")
	g := newFakeGuest(w, &fakeDisk{world: w, id: "vda"})
	g.writes = ^uint64(0) // 256 KiB, for which the link takes a quarter of a second
	var most float64
	r := w.migrate(t.Context(), g, newFakeHost(w, "vda"), Options{
		Streams:  MaxStreams,
		Limits:   Limits{Downtime: 150 * time.Millisecond, Stall: patience, Timeout: 2 * time.Second},
		Progress: func(p Progress) { most = max(most, p.Rate) },
	}, through)
	if r.source == nil || !strings.Contains(r.source.Error(), "the guest dirties its memory faster than it is sent") {
		t.Errorf("%v", r.source)
	}
	if most == 0 || most > 1.2*perSecond { // a pass less the burst takes its time
		t.Errorf("the link's rate was taken for %.0f bytes a second", most)
	}
	if slices.ContainsFunc(r.report.Phases, func(p PhaseTime) bool { return p.Phase == "ebb" }) {
		t.Errorf("phases %+v", r.report.Phases)
	}
	w.atSource()
}

// copySlowly is io.Copy within a limit.
func copySlowly(to, from net.Conn, limit *rate.Limiter) {
	defer to.Close()
	buf := make([]byte, limit.Burst())
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = limit.WaitN(context.Background(), n)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
