package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/migration"
	"github.com/ebb-vmm/ebb/migration/ram"
)

// pretended is a guest that is nothing but memory, of which it changes some: a migration's source. The log is that of devices'
// writes (memory.RAM.Wrote), as the guest has no processor whose writes KVM could log.
type pretended struct {
	memory  *memory.RAM
	running sync.Mutex   // held by whoever keeps it from changing anything
	slowed  atomic.Int32 // percent
	changed atomic.Int64 // pages
}

var _ migration.Guest = (*pretended)(nil)

// newPretended fills the first MiB of a guest's memory.
func newPretended(memoryMiB int) (*pretended, error) {
	m, err := memory.New(uint64(memoryMiB) << 20)
	if err != nil {
		return nil, err
	}
	random, left := rand.NewPCG(1, 2), filled(memoryMiB)<<20
	for _, r := range m.Regions() {
		n := min(left, len(r.Bytes))
		left -= n
		for p := r.Bytes[:n]; len(p) > 0; p = p[8:] {
			binary.LittleEndian.PutUint64(p, random.Uint64())
		}
	}
	return &pretended{memory: m}, nil
}

// live changes bytes of memory a second, page after page, as the workload load of guest/init does, until ctx ends.
func (p *pretended) live(ctx context.Context, bytes int, filled int) {
	const every = 10 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	at, random, pages := uint64(0), rand.NewPCG(3, 4), int(every.Seconds()*float64(bytes))/memory.PageSize
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.running.Lock()
		for range pages * int(100-p.slowed.Load()) / 100 {
			page := p.page(at)
			binary.LittleEndian.PutUint64(page, random.Uint64())
			p.memory.Wrote(&page[0], 8)
			p.changed.Add(1)
			if at += memory.PageSize; at >= uint64(filled) {
				at = 0
			}
		}
		p.running.Unlock()
	}
}

// page is the one that so many bytes come before.
func (p *pretended) page(at uint64) []byte {
	for _, r := range p.memory.Regions() {
		if at < uint64(len(r.Bytes)) {
			return r.Bytes[at:]
		}
		at -= uint64(len(r.Bytes))
	}
	panic("there is no such page")
}

func (p *pretended) Regions() []ram.Region { return regions(p.memory) }

func (p *pretended) Track(on bool) error {
	if on {
		p.memory.StartTracking()
	} else {
		p.memory.StopTracking()
	}
	return nil
}

func (p *pretended) Written(region int, bitmap []uint64) error {
	p.memory.CollectWritten(region, bitmap)
	return nil
}
func (p *pretended) Clear(int, uint64, []uint64) error  { return nil } // Written has
func (p *pretended) Describe() (json.RawMessage, error) { return json.RawMessage(`{}`), nil }
func (p *pretended) Check(json.RawMessage) error        { return nil }
func (p *pretended) Disks() []migration.Disk            { return nil }
func (p *pretended) Files() []migration.File            { return nil }
func (p *pretended) SaveAhead() json.RawMessage         { return json.RawMessage(`{}`) }
func (p *pretended) Throttle(percent int)               { p.slowed.Store(int32(percent)) }
func (p *pretended) Stop() error                        { p.running.Lock(); return nil }
func (p *pretended) Resume()                            { p.running.Unlock() }
func (p *pretended) Save() ([]byte, error)              { return []byte("state"), nil }
func (p *pretended) Over() <-chan struct{}              { return nil }
func (p *pretended) Leave()                             {}
func (p *pretended) Pause(string)                       {}

// place is a host with memory for a pretended guest.
type place struct{ memory *memory.RAM }

func (p place) Prepare(string, []ram.Region, json.RawMessage) (migration.Incoming, error) {
	return arrived(p), nil
}

// arrived is a migration's destination.
type arrived struct{ memory *memory.RAM }

func (a arrived) Regions() []ram.Region                 { return regions(a.memory) }
func (a arrived) Describe() json.RawMessage             { return json.RawMessage(`{}`) }
func (a arrived) File(string, int64) (io.Writer, error) { return io.Discard, nil }
func (a arrived) Reserve() error                        { return nil }
func (a arrived) TakeOver() error                       { return nil }
func (a arrived) GiveBack() error                       { return nil }
func (a arrived) Prepare(json.RawMessage) error         { return nil }
func (a arrived) Load([]byte, time.Duration) error      { return nil }
func (a arrived) Unload()                               {}
func (a arrived) Over() <-chan struct{}                 { return nil }
func (a arrived) Run()                                  {}
func (a arrived) Discard()                              { a.memory.Close() }

func regions(m *memory.RAM) (list []ram.Region) {
	for _, r := range m.Regions() {
		list = append(list, ram.Region(r))
	}
	return list
}

// sumOf tells whether two memories are the same.
func sumOf(m *memory.RAM) uint64 {
	sum := xxhash.New()
	for _, r := range m.Regions() {
		_, _ = sum.Write(r.Bytes)
	}
	return sum.Sum64()
}
