package migration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/ram"
)

// patience bounds what would hang if it were wrong.
const patience = 30 * time.Second

// world is a guest, its disks, and the two sides it may run on. It notices at once if
// both run it, or one that doesn't own the images.
type world struct {
	t *testing.T

	mu       sync.Mutex
	runner   string            // "source", "destination" or nobody
	owner    map[string]string // by disk
	reserved map[string]string
	wrong    []string

	over    chan struct{}
	left    bool
	paused  string
	resumed int // times
	windows map[string]int
	vcpus   int  // throttle percent
	tracked bool // the dirty log is kept

	breakAt func(step string) error // asked at every step of both sides; nil: nothing breaks
}

func newWorld(t *testing.T, disks ...string) *world {
	w := &world{t: t, runner: "source", owner: map[string]string{}, reserved: map[string]string{}, over: make(chan struct{}), windows: map[string]int{}}
	for _, d := range disks {
		w.owner[d], w.reserved[d], w.windows[d] = "source", "source", drain.Unlimited
	}
	return w
}

// step is a place where something may break.
func (w *world) step(name string) error {
	if w.breakAt != nil {
		return w.breakAt(name)
	}
	return nil
}

// run has the guest run on a side.
func (w *world) run(side string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner != "" && w.runner != side {
		w.wrong = append(w.wrong, fmt.Sprintf("%s runs the guest, and %s begins to", w.runner, side))
	}
	if side == "destination" {
		for d, o := range w.owner {
			if o != side {
				w.wrong = append(w.wrong, fmt.Sprintf("%s runs the guest, but disk %s is owned by %q", side, d, o))
			}
		}
	}
	w.runner = side
	if side == "source" {
		w.resumed++
	}
}

func (w *world) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runner = ""
}

// lock takes or gives one of a disk's two locks.
func (w *world) lock(locks map[string]string, disk, side string, take bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch have := locks[disk]; {
	case take && have != "" && have != side:
		return fmt.Errorf("image is locked by %s", have)
	case take:
		locks[disk] = side
	case have == side:
		locks[disk] = ""
	}
	return nil
}

func (w *world) dies(side string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, locks := range []map[string]string{w.owner, w.reserved} {
		for d, s := range locks {
			if s == side {
				locks[d] = ""
			}
		}
	}
}

// atSource checks that the guest is as it was before.
func (w *world) atSource() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner != "source" || w.left || w.paused != "" || w.vcpus != 0 || w.tracked {
		w.t.Errorf("the guest runs at %q (left %v, paused %q, throttled %d, tracked %v)", w.runner, w.left, w.paused, w.vcpus, w.tracked)
	}
	for d := range w.owner {
		if w.owner[d] != "source" || w.reserved[d] != "source" || w.windows[d] != drain.Unlimited {
			w.t.Errorf("disk %s: owner %q, reserved by %q, window %d", d, w.owner[d], w.reserved[d], w.windows[d])
		}
	}
	w.check()
}

func (w *world) atDestination() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner != "destination" || !w.left {
		w.t.Errorf("the guest runs at %q, left %v", w.runner, w.left)
	}
	for d := range w.owner {
		if w.owner[d] != "destination" || w.reserved[d] != "destination" {
			w.t.Errorf("disk %s: owner %q, reserved by %q", d, w.owner[d], w.reserved[d])
		}
	}
	w.check()
}

// check reports what was wrong at any time. mu is held.
func (w *world) check() {
	w.t.Helper()
	for _, s := range w.wrong {
		w.t.Error(s)
	}
}

// fakeGuest is the source's machine.
type fakeGuest struct {
	*world
	memory []ram.Region
	disks  []Disk
	writes uint64 // which of the first 64 pages are written whenever the log is asked: a bitmap
	slow   func() // if set, called whenever pages are taken off the log
	state  string
}

func newFakeGuest(w *world, disks ...*fakeDisk) *fakeGuest {
	g := &fakeGuest{world: w, memory: []ram.Region{{GPA: 0, Bytes: make([]byte, 64*ram.PageSize)}}, state: `{"fake":1}`}
	for i := range g.memory[0].Bytes {
		g.memory[0].Bytes[i] = byte(i / ram.PageSize)
	}
	for _, d := range disks {
		g.disks = append(g.disks, d)
	}
	return g
}

func (g *fakeGuest) Regions() []ram.Region              { return g.memory }
func (g *fakeGuest) Describe() (json.RawMessage, error) { return json.RawMessage(`{"fake":true}`), nil }
func (g *fakeGuest) Check(json.RawMessage) error        { return g.step("check") }
func (g *fakeGuest) Files() []File {
	return []File{{"one", 5, io.NopCloser(strings.NewReader("first"))}, {"two", 300 << 10, io.NopCloser(strings.NewReader(strings.Repeat("x", 300<<10)))}}
}
func (g *fakeGuest) Disks() []Disk { return g.disks }
func (g *fakeGuest) Track(on bool) error {
	g.mu.Lock()
	g.tracked = on
	g.mu.Unlock()
	return g.step("track")
}

func (g *fakeGuest) Written(_ int, bitmap []uint64) error {
	bitmap[0] |= g.writes
	return nil
}
func (g *fakeGuest) Clear(int, uint64, []uint64) error {
	if g.slow != nil {
		g.slow()
	}
	return nil
}

func (g *fakeGuest) Throttle(percent int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vcpus = percent
}

func (g *fakeGuest) Stop() error {
	g.stop()
	return g.step("stop")
}
func (g *fakeGuest) Resume() { g.run("source") }
func (g *fakeGuest) Save() ([]byte, error) {
	for _, d := range g.disks {
		if n := d.(*fakeDisk).Sample().InFlight; n > 0 {
			g.t.Errorf("saved with %d requests in flight", n)
		}
	}
	return []byte(g.state), g.step("save")
}
func (g *fakeGuest) SaveAhead() json.RawMessage {
	_ = g.step("save ahead")
	return json.RawMessage(`{}`)
}
func (g *fakeGuest) Over() <-chan struct{} { return g.over }
func (g *fakeGuest) Leave() {
	g.mu.Lock()
	g.left = true
	g.mu.Unlock()
	g.dies("source")
}
func (g *fakeGuest) Pause(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = reason
	if g.runner == "source" {
		g.runner = ""
	}
}

// fakeDisk is a disk with requests in flight that finish when it is closed, or never.
type fakeDisk struct {
	*world
	id    string
	busy  int  // in flight while the window is open
	hangs bool // the requests stay, whatever the window
	kept  error
	syncs int
}

func (d *fakeDisk) ID() string { return d.id }
func (d *fakeDisk) Sample() drain.Sample {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.windows[d.id]
	s := drain.Sample{Window: w, InFlight: min(d.busy, w)}
	if d.hangs {
		s.InFlight = d.busy
		s.Going.Length, s.Going.InFlight = time.Hour, d.busy
	}
	return s
}
func (d *fakeDisk) SetWindow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.windows[d.id] = n
}
func (d *fakeDisk) Idle(ctx context.Context) error {
	if d.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.step("idle")
}
func (d *fakeDisk) Sync(context.Context) error {
	d.mu.Lock()
	d.syncs++
	d.mu.Unlock()
	return d.step("sync")
}
func (d *fakeDisk) Kept() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept
}
func (d *fakeDisk) SyncDebt() uint64                { return 0 }
func (d *fakeDisk) WriteBack(context.Context) error { return nil }
func (d *fakeDisk) OfferReservation() error {
	return errors.Join(d.step("offer"), d.lock(d.reserved, d.id, "source", false))
}
func (d *fakeDisk) ReclaimReservation() error { return d.lock(d.reserved, d.id, "source", true) }
func (d *fakeDisk) ReleaseOwner() error {
	return errors.Join(d.step("release"), d.lock(d.owner, d.id, "source", false))
}
func (d *fakeDisk) ReclaimOwner() error {
	if err := d.step("reclaim"); err != nil {
		return err
	}
	return d.lock(d.owner, d.id, "source", true)
}

// fakeHost is the destination.
type fakeHost struct {
	*world
	disks   []string
	memory  []ram.Region
	state   string
	files   []*bytes.Buffer
	refused chan struct{} // closed by the first refusal
	ended   chan struct{} // closed when somebody ends the machine
}

func newFakeHost(w *world, disks ...string) *fakeHost {
	return &fakeHost{world: w, disks: disks, refused: make(chan struct{}), ended: make(chan struct{})}
}

func (h *fakeHost) Prepare(name string, memory []ram.Region, machine json.RawMessage) (Incoming, error) {
	if err := h.step("prepare"); err != nil {
		close(h.refused)
		return nil, err
	}
	h.memory, h.state = nil, ""
	for _, m := range memory {
		h.memory = append(h.memory, ram.Region{GPA: m.GPA, Bytes: make([]byte, 64*ram.PageSize)})
	}
	return &fakeIncoming{h}, nil
}

type fakeIncoming struct{ *fakeHost }

func (i *fakeIncoming) Regions() []ram.Region { return i.memory }
func (i *fakeIncoming) File(name string, size int64) (io.Writer, error) {
	i.files = append(i.files, &bytes.Buffer{})
	return i.files[len(i.files)-1], i.step("file")
}
func (i *fakeIncoming) Describe() json.RawMessage { return json.RawMessage(`{}`) }
func (i *fakeIncoming) each(locks map[string]string, take bool) error {
	var all error
	for _, d := range i.disks {
		all = errors.Join(all, i.lock(locks, d, "destination", take))
	}
	return all
}
func (i *fakeIncoming) Reserve() error {
	return errors.Join(i.step("reserve"), i.each(i.reserved, true))
}
func (i *fakeIncoming) TakeOver() error {
	return errors.Join(i.step("take over"), i.each(i.owner, true))
}
func (i *fakeIncoming) GiveBack() error {
	return errors.Join(i.step("give back"), i.each(i.owner, false))
}
func (i *fakeIncoming) Load(m []byte, _ time.Duration) error {
	if i.state != "" {
		i.t.Error("it is loaded already")
	}
	i.state = string(m)
	return i.step("load")
}
func (i *fakeIncoming) Unload() {
	if i.state == "" {
		i.t.Error("nothing was loaded")
	}
	i.state = ""
}
func (i *fakeIncoming) Prepare(json.RawMessage) error { return i.step("ahead") }
func (i *fakeIncoming) Over() <-chan struct{}         { return i.ended }
func (i *fakeIncoming) Run()                          { i.run("destination") }
func (i *fakeIncoming) Discard() {
	_ = i.step("discard")
	i.dies("destination")
}

// result is how both sides of a migration ended.
type result struct {
	report *Report
	source error
	dest   error
	in     Incoming
}

// migrate runs both sides. through, if set, is what the source connects to instead of the destination's address.
func (w *world) migrate(ctx context.Context, g *fakeGuest, h *fakeHost, o Options, through func(address string) string) (r result) {
	w.t.Helper()
	l, err := Security{}.Listen("127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	o.Name, o.Address = "guest", l.Addr().String()
	if through != nil {
		o.Address = through(o.Address)
	}
	if o.Limits == (Limits{}) {
		o.Limits = Limits{Downtime: 10 * time.Second, Stall: 10 * time.Second, Timeout: patience}
	}
	receiving, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.in, r.dest = Receive(receiving, l, ReceiveOptions{Host: h})
		if errors.Is(r.dest, ErrUncommitted) {
			w.dies("destination") // it gives the images back
		}
	}()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		r.report, r.source = Send(ctx, o, g)
	}()
	select {
	case <-sent:
	case <-time.After(patience):
		w.t.Fatal("the source hangs")
	}
	if r.source != nil {
		// A destination that refused goes on waiting.
		select {
		case <-done:
		case <-h.refused:
		case <-time.After(patience):
			w.t.Fatal("the destination hangs")
		}
		stop()
	}
	select {
	case <-done:
	case <-time.After(patience):
		w.t.Fatal("the destination hangs")
	}
	return r
}
