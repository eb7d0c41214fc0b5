package migration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// ends are the events that actions end in.
var ends = map[ActionKind][]EventKind{
	Connect: {Accepted}, SendPass: {PassDone}, BeginDrain: {Tick}, HoldDisks: {Tick}, CloseDisks: {Drained}, HandOver: {DestinationReady}, TakeBack: {Returned},
	StopGuest: {Stopped}, SendLast: {LastOnWay, LastSent}, SendState: {Loaded}, SendCommit: {Runs}, Reclaim: {Reclaimed},
}

// anyEvent draws something that may happen, at whatever moment: mostly what is due.
func anyEvent(t *rapid.T, now time.Duration, due *[]EventKind) Event {
	kinds := []EventKind{Begin, Accepted, PassDone, PassDone, Tick, Tick, Tick, Drained, DestinationReady, Returned, Stopped, LastOnWay, LastSent, Loaded, Runs, Failed, Cancelled, Reclaimed, OwnerLost}
	e := Event{Now: now}
	if n := len(*due); n > 0 && rapid.IntRange(0, 19).Draw(t, "surprise") > 0 {
		i := rapid.IntRange(0, n-1).Draw(t, "due")
		e.Kind = (*due)[i]
		*due = slices.Delete(*due, i, i+1)
	} else {
		e.Kind = rapid.SampledFrom(kinds).Draw(t, "event")
	}
	switch e.Kind {
	case Failed, OwnerLost:
		e.Err = errors.New("trouble")
	case PassDone:
		e.Sent, e.Wire, e.Left, e.Took = 100<<20, 100<<20, rapid.SampledFrom([]uint64{0, 1 << 20, 90 << 20}).Draw(t, "left"), 100*time.Millisecond
	case Tick:
		e.Drain.Ready = rapid.Bool().Draw(t, "ready")
		e.Drain.Drained = rapid.Bool().Draw(t, "drained")
		e.Drain.Missed = rapid.IntRange(0, 5).Draw(t, "missed") == 0
		e.Drain.Off = rapid.IntRange(0, 9).Draw(t, "off") == 0
		if rapid.IntRange(0, 9).Draw(t, "kept") == 0 {
			e.Drain.Kept = errors.New("failed requests")
		}
	}
	return e
}

// ledger follows the actions of one migration as a driver would carry them out.
type ledger struct {
	stopped, closed, handed, last, state, committed, left, abandoned bool
	sent, loaded                                                     bool // was told since
}

// told notes what makes a commit possible.
func (l *ledger) told(e Event) {
	l.sent = l.sent || l.last && e.Kind == LastSent
	l.loaded = l.loaded || l.state && e.Kind == Loaded
}

func (l *ledger) act(t *rapid.T, a Action, was Phase, e Event, limits Limits) {
	if l.left || l.committed && a.Do != Leave && a.Do != Strand {
		t.Fatalf("%s after the commit point", actionNames[a.Do])
	}
	switch a.Do {
	case Connect:
		*l = ledger{stopped: l.stopped, closed: l.closed}
	case HoldDisks, CloseDisks:
		l.closed = true
	case OpenDisks:
		if l.stopped {
			t.Fatal("the disks open while the vCPUs stand")
		}
		l.closed, l.handed = false, false
	case HandOver:
		if !l.closed || l.handed {
			t.Fatalf("the images are given away with the disks closed %v, given before %v", l.closed, l.handed)
		}
		l.handed = true
	case StopGuest:
		// With the policy off, and when forced, the disks are drained after that.
		if l.stopped || !l.handed && !limits.Offline && !limits.Force {
			t.Fatalf("the guest is stopped: stopped before %v, images given away %v", l.stopped, l.handed)
		}
		l.stopped = true
	case SendLast:
		if !l.stopped || !l.closed || !l.handed {
			t.Fatalf("the last of it is sent: %+v", *l)
		}
		l.last, l.state, l.sent, l.loaded = true, false, false, false
	case SendState:
		if !l.last || !l.stopped || !l.closed || !l.handed {
			t.Fatalf("the state is sent: %+v", *l)
		}
		l.state = true
	case SendCommit:
		if was != Stop || !l.sent || !l.loaded {
			t.Fatalf("a commit in %v with all of memory there %v, the state loaded %v", was, l.sent, l.loaded)
		}
		l.committed = true
	case ResumeGuest:
		l.stopped, l.last, l.state = false, false, false
	case Leave:
		l.left = true
	case Abandon:
		if l.abandoned {
			t.Fatal("abandoned twice")
		}
		l.abandoned = true
	}
}

// Whatever happens in whatever order, what the machine wants done makes sense.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Downtime: 50 * time.Millisecond, Stall: 150 * time.Millisecond, Timeout: 5 * time.Second,
			Offline: rapid.Bool().Draw(t, "offline"), Force: rapid.Bool().Draw(t, "force"),
		}
		s, l, now, due := NewSource(limits), ledger{}, time.Duration(0), []EventKind{Begin}
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			now += time.Duration(rapid.SampledFrom([]int{1, 1, 1, 1, 5, 5, 200, 1000}).Draw(t, "ms")) * time.Millisecond
			e := anyEvent(t, now, &due)
			if e.Kind == Begin && l.abandoned && s.err != nil && rapid.Bool().Draw(t, "settled") {
				// A driver begins another only when the last one is settled.
				for _, a := range s.Step(Event{Kind: Reclaimed, Now: now}) {
					l.act(t, a, Run, e, limits)
				}
			}
			was := s.Phase()
			l.told(e)
			for _, a := range s.Step(e) {
				l.act(t, a, was, e, limits)
				due = append(due, ends[a.Do]...)
			}
			if s.Phase() == Run && l.stopped {
				t.Fatal("no migration, and the guest stands")
			}
		}
	})
}

// The table of transitions in PROTOCOL.md is what the machine does: all of it, and nothing else.
func TestTransitionTable(t *testing.T) {
	names := map[EventKind]string{}
	for name, kind := range eventNames {
		names[kind] = name
	}
	found := map[string]bool{}
	for _, limits := range []Limits{{}, {Offline: true}, {Force: true, Timeout: 5 * time.Second}, {Timeout: 5 * time.Second}} {
		limits.Downtime, limits.Stall = 50*time.Millisecond, 150*time.Millisecond
		explore(limits, func(from Phase, e Event, to Phase) {
			if from != to {
				found[fmt.Sprintf("%s %s %s", from, names[e.Kind], to)] = true
			}
		})
	}
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\| ([^|]*) \\| `([a-z]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		for _, event := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(row[2], -1) {
			said[row[1]+" "+event[1]+" "+row[3]] = true
		}
	}
	for _, f := range slices.Sorted(maps.Keys(found)) {
		if !said[f] {
			t.Errorf("the table lacks %s", f)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(said)) {
		if !found[f] {
			t.Errorf("the table has %s, which doesn't happen", f)
		}
	}
}

// explore tries every event in every state that can be reached by at most depth events, with states told apart by what decides.
func explore(limits Limits, visit func(from Phase, e Event, to Phase)) {
	type node struct {
		s   Source
		now time.Duration
	}
	key := func(n node) string {
		s := n.s
		return fmt.Sprint(s.phase, s.rate > 0, s.fits(), s.failing, s.throttle > 0, s.drained, s.handing, s.ready, s.leaving, s.forced, s.stopped, s.sending, s.loading, s.loaded, s.err != nil, s.closing, s.retries > 0, n.now >= s.retryAt, n.now >= s.until, n.now-s.began >= limits.Timeout)
	}
	var events []Event
	for _, kind := range eventNames {
		e := Event{Kind: kind, Err: errors.New("trouble")}
		switch kind {
		case Accepted:
			e.Trip = time.Second
			events = append(events, e)
			e.Trip = 0
		case PassDone:
			for _, left := range []uint64{1 << 20, 90 << 20} {
				e.Sent, e.Wire, e.Left, e.Took = 100<<20, 100<<20, left, 100*time.Millisecond
				events = append(events, e)
			}
			continue
		case Tick:
			for _, d := range []Drain{{}, {Ready: true}, {Drained: true}, {Missed: true}, {Off: true}, {Kept: errors.New("failed requests")}} {
				e.Drain = d
				events = append(events, e)
			}
			continue
		}
		events = append(events, e)
	}
	seen := map[string]bool{}
	queue := []node{{s: *NewSource(limits)}}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, step := range []time.Duration{time.Millisecond, 40 * time.Millisecond, 200 * time.Millisecond, 6 * time.Second, 31 * time.Second} {
			for _, e := range events {
				next := node{s: n.s, now: n.now + step}
				e.Now = next.now
				next.s.Step(e)
				visit(n.s.phase, e, next.s.phase)
				if k := key(next); !seen[k] {
					seen[k] = true
					queue = append(queue, next)
				}
			}
		}
	}
}
