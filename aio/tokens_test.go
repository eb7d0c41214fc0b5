package aio

import (
	"math"
	"testing"
)

// A disk that goes on elsewhere has what it had left, whether that is a burst or a debt.
func TestTokensTravel(t *testing.T) {
	limits := Limits{IOPS: Rate{PerSecond: 100, Burst: 50}, BPS: Rate{PerSecond: 1 << 20, Burst: 1 << 20}}
	s := simulate(t, 0, byDisk(microsecond))
	cfg := PortConfig{Name: "a", Demand: 64, Limits: limits}
	p, q := s.disk(t, cfg, 64, smallReads())
	tokens := func(p *Port) Tokens {
		for _, l := range p.limiters {
			if !l.shared {
				return l.tokens(s.e.now)
			}
		}
		return Tokens{}
	}
	if got := tokens(p); got != (Tokens{IOPS: 50, BPS: 1 << 20}) {
		t.Errorf("at first %+v", got)
	}
	s.run(s.clock + millisecond)
	left := tokens(p)
	if q.completed != 50 || left.IOPS < 0 || left.IOPS > 0.2 || left.BPS > 1<<20-50*512+2000 {
		t.Errorf("after %d requests %+v", q.completed, left)
	}
	for _, c := range []struct {
		have Tokens
		want int // requests at once
	}{{left, 0}, {Tokens{IOPS: 20, BPS: 1 << 20}, 20}, {Tokens{IOPS: 1000, BPS: 1 << 30}, 50}, {Tokens{IOPS: 50, BPS: -5000}, 0}, {Tokens{IOPS: 50, BPS: 1}, 1}} {
		s := simulate(t, 0, byDisk(microsecond))
		cfg := cfg
		cfg.Tokens = &c.have
		_, q := s.disk(t, cfg, 64, smallReads())
		if s.run(s.clock + millisecond/10); q.completed != c.want {
			t.Errorf("with %+v: %d requests at once, want %d", c.have, q.completed, c.want)
		}
	}
	// The debt is paid at the limit's rate: 5000 bytes in 5 ms.
	s = simulate(t, 0, byDisk(microsecond))
	cfg.Tokens = &Tokens{IOPS: 50, BPS: -5000}
	_, q = s.disk(t, cfg, 64, smallReads())
	if s.run(s.clock + 4*millisecond); q.completed != 0 {
		t.Errorf("%d requests before the debt is paid", q.completed)
	}
	if s.run(s.clock + 2*millisecond); q.completed == 0 {
		t.Error("no request after the debt is paid")
	}
}

func TestGroupTokensTravel(t *testing.T) {
	s := simulate(t, 0, byDisk(microsecond))
	g, err := s.e.NewGroup("g", Limits{IOPS: Rate{PerSecond: 100, Burst: 50}})
	must(t, err)
	must(t, g.SetTokens(Tokens{IOPS: 7}))
	s.e.mail.run()
	_, q := s.disk(t, PortConfig{Name: "a", Demand: 64, Group: g}, 64, smallReads())
	if s.run(s.clock + millisecond); q.completed != 7 {
		t.Errorf("%d requests at once, want 7", q.completed)
	}
	if g.SetTokens(Tokens{IOPS: math.NaN()}) == nil {
		t.Error("nonsense accepted")
	}
}

func TestTokens(t *testing.T) {
	e := newTestEngine(t, Config{})
	g, err := e.NewGroup("g", Limits{BPS: Rate{PerSecond: 1, Burst: 300}})
	must(t, err)
	p := port(t, e, PortConfig{Name: "a", FD: openFile(t, "/dev/shm", 0, 1<<20), Queues: []Queue{newTestQueue(t)}, Demand: 64,
		Limits: Limits{IOPS: Rate{PerSecond: 1, Burst: 30}}, Group: g})
	if got := p.Tokens(); got != (Tokens{IOPS: 30}) {
		t.Errorf("%+v", got)
	}
	if got := g.Tokens(); got != (Tokens{BPS: 300}) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []Tokens{{IOPS: math.NaN()}, {BPS: math.Inf(-1)}, {BPS: -mostOwed - 1e6}, {IOPS: math.Inf(1)}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
		cfg := PortConfig{Name: "a", Tokens: &bad}
		if cfg.validate() == nil {
			t.Errorf("a port with %+v is valid", bad)
		}
	}
}
