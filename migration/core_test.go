package migration

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The state machine's tests are the scripts in testdata: lines of an event and, behind ->, the
// phase and the actions that must follow.
//
//	limits downtime=50ms stall=150ms timeout=10s force offline
//	0ms    begin                          -> setup: connect
//	10ms   accepted trip=1ms              -> precopy: track-memory send-pass
//
// An event that must change nothing has only the phase behind the arrow.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, f) })
	}
}

func runScript(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s *Source
	lines := bufio.NewScanner(f)
	for nr := 1; lines.Scan(); nr++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "limits" {
			s = NewSource(parseLimits(t, words[1:]))
			continue
		}
		in, want, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("%s:%d: no ->", path, nr)
		}
		e, err := parseEvent(strings.Fields(in))
		if err != nil {
			t.Fatalf("%s:%d: %v", path, nr, err)
		}
		got := describe(s.Step(e), s)
		if want = strings.Join(strings.Fields(want), " "); got != want {
			t.Fatalf("%s:%d: %s\n got %s\nwant %s", path, nr, strings.TrimSpace(in), got, want)
		}
	}
}

func parseLimits(t *testing.T, words []string) (l Limits) {
	l = Limits{Downtime: 50 * time.Millisecond, Stall: 150 * time.Millisecond}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		d, _ := time.ParseDuration(value)
		switch name {
		case "downtime":
			l.Downtime = d
		case "stall":
			l.Stall = d
		case "timeout":
			l.Timeout = d
		case "force":
			l.Force = true
		case "offline":
			l.Offline = true
		default:
			t.Fatalf("limit %s", w)
		}
	}
	return l
}

var eventNames = map[string]EventKind{
	"begin": Begin, "accepted": Accepted, "pass-done": PassDone, "tick": Tick, "drained": Drained, "destination-ready": DestinationReady,
	"returned": Returned, "stopped": Stopped, "last-on-way": LastOnWay, "last-sent": LastSent, "loaded": Loaded, "runs": Runs, "failed": Failed, "aborted": Aborted, "cancelled": Cancelled,
	"reclaimed": Reclaimed, "owner-lost": OwnerLost,
}

var actionNames = [...]string{
	Connect: "connect", TrackMemory: "track-memory", SendPass: "send-pass", HurryPass: "hurry-pass", Throttle: "throttle", BeginDrain: "begin-drain", HoldDisks: "hold-disks",
	CloseDisks: "close-disks", HandOver: "hand-over", TakeBack: "take-back", OpenDisks: "open-disks", StopGuest: "stop-guest", SendLast: "send-last", SendState: "send-state",
	SendCommit: "send-commit", Leave: "leave", Abandon: "abandon", ResumeGuest: "resume-guest", Reclaim: "reclaim", PauseGuest: "pause-guest", Strand: "strand",
}

// parseEvent reads "TIME EVENT [key=value]...".
func parseEvent(words []string) (e Event, err error) {
	if len(words) < 2 {
		return e, fmt.Errorf("a time and an event are needed: %q", words)
	}
	if e.Now, err = time.ParseDuration(words[0]); err != nil {
		return e, err
	}
	kind, ok := eventNames[words[1]]
	if !ok {
		return e, fmt.Errorf("no event %s", words[1])
	}
	e.Kind = kind
	if kind == Failed || kind == OwnerLost {
		e.Err = errors.New("trouble")
	}
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "ready":
			e.Drain.Ready = true
		case "drained":
			e.Drain.Drained = true
		case "missed":
			e.Drain.Missed = true
		case "off":
			e.Drain.Off = true
		case "kept":
			e.Drain.Kept = errors.New("disk-vda-has-failed-requests")
		case "verdict":
			e.Drain.Verdict = value
		case "trip":
			e.Trip, err = time.ParseDuration(value)
		case "took":
			e.Took, err = time.ParseDuration(value)
		case "sent":
			e.Sent, err = parseSize(value)
			e.Wire = e.Sent // unless that follows
		case "wire":
			e.Wire, err = parseSize(value)
		case "left":
			e.Left, err = parseSize(value)
		default:
			err = fmt.Errorf("no key %s", name)
		}
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

// parseSize reads MiB, or KiB with a k behind them.
func parseSize(s string) (uint64, error) {
	digits, isK := strings.CutSuffix(s, "k")
	n, err := strconv.ParseUint(digits, 10, 64)
	if isK {
		return n << 10, err
	}
	return n << 20, err
}

// describe is "PHASE: ACTION ACTION".
func describe(actions []Action, s *Source) string {
	words := []string{s.Phase().String()}
	for i, a := range actions {
		if i == 0 {
			words[0] += ":"
		}
		w := actionNames[a.Do]
		if a.Do == Throttle {
			w += fmt.Sprintf("=%d", a.Percent)
		}
		if a.After > 0 {
			w += "@" + a.After.String()
		}
		if a.Do == Abandon && a.Err != nil && a.Err.Error() != "trouble" && !errors.Is(a.Err, errCancelled) {
			w += fmt.Sprintf("(%s)", strings.ReplaceAll(a.Err.Error(), " ", "_"))
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}
