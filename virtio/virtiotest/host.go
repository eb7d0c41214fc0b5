package virtiotest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// Host is a machine: it implements pci.Host, and routes a guest's accesses to BARs
// and ioeventfds as a bus and KVM would.
type Host struct {
	t testing.TB

	mu       sync.Mutex
	bars     []mappedBAR
	kicks    map[uint64]int // address → eventfd
	vectors  []*Vector
	maxLines int
	refuse   error // MapBAR's answer
	mapCalls int
}

type mappedBAR struct {
	f    pci.Function
	bar  int
	addr uint64
}

// NewHost returns a machine without functions.
func NewHost(t testing.TB) *Host {
	return &Host{t: t, kicks: map[uint64]int{}, maxLines: 1 << 20}
}

// LimitVectors makes NewVector fail when there are n.
func (h *Host) LimitVectors(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.maxLines = n
}

// RefuseBARs makes MapBAR fail with err, nil ends that.
func (h *Host) RefuseBARs(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = err
}

// MapBAR implements pci.Host.
func (h *Host) MapBAR(f pci.Function, bar int, addr uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mapCalls++
	for i, b := range h.bars {
		if b.f == f && b.bar == bar {
			if addr != 0 {
				return fmt.Errorf("BAR %d is mapped at %#x, not unmapped before it is mapped at %#x", bar, b.addr, addr)
			}
			h.bars = append(h.bars[:i], h.bars[i+1:]...)
			return nil
		}
	}
	if addr == 0 {
		return fmt.Errorf("BAR %d is not mapped", bar)
	}
	if h.refuse != nil {
		return h.refuse
	}
	h.bars = append(h.bars, mappedBAR{f, bar, addr})
	return nil
}

// BAR returns where a BAR of f is mapped, 0 if nowhere.
func (h *Host) BAR(f pci.Function, bar int) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bars {
		if b.f == f && b.bar == bar {
			return b.addr
		}
	}
	return 0
}

// AddIOEventFD implements pci.Host.
func (h *Host) AddIOEventFD(addr uint64, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.kicks[addr]; ok {
		return fmt.Errorf("ioeventfd at %#x: %w", addr, unix.EEXIST)
	}
	h.kicks[addr] = fd
	return nil
}

// RemoveIOEventFD implements pci.Host.
func (h *Host) RemoveIOEventFD(addr uint64, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have, ok := h.kicks[addr]; !ok || have != fd {
		return fmt.Errorf("ioeventfd %d at %#x: %w", fd, addr, unix.ENOENT)
	}
	delete(h.kicks, addr)
	return nil
}

// IOEventFDs returns a copy of what is registered.
func (h *Host) IOEventFDs() map[uint64]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := map[uint64]int{}
	for a, fd := range h.kicks {
		m[a] = fd
	}
	return m
}

// NewVector implements pci.Host.
func (h *Host) NewVector() (pci.Vector, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.vectors) >= h.maxLines {
		return nil, errors.New("no MSI line left")
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	v := &Vector{fd: fd}
	h.vectors = append(h.vectors, v)
	return v, nil
}

// Vector returns the line whose message carries data, nil if there is none.
func (h *Host) Vector(data uint32) *Vector {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.vectors {
		if _, d, ok := v.Route(); ok && d == data {
			return v
		}
	}
	return nil
}

// Vectors returns how many lines there are.
func (h *Host) Vectors() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.vectors)
}

// Store is a guest's store to physical memory that isn't RAM.
func (h *Host) Store(addr uint64, p []byte) {
	h.t.Helper()
	h.mu.Lock()
	fd, kick := h.kicks[addr]
	b, ok := h.find(addr, len(p))
	h.mu.Unlock()
	switch {
	case kick:
		signal(fd)
	case ok:
		b.f.WriteBAR(b.bar, addr-b.addr, p)
	default:
		h.t.Errorf("virtiotest: store to %#x, where nothing is mapped", addr)
	}
}

// Load is a guest's load from physical memory that isn't RAM.
func (h *Host) Load(addr uint64, p []byte) {
	h.t.Helper()
	h.mu.Lock()
	b, ok := h.find(addr, len(p))
	h.mu.Unlock()
	if !ok {
		h.t.Errorf("virtiotest: load from %#x, where nothing is mapped", addr)
		return
	}
	b.f.ReadBAR(b.bar, addr-b.addr, p)
}

func (h *Host) find(addr uint64, n int) (mappedBAR, bool) {
	for _, b := range h.bars {
		if addr >= b.addr && addr+uint64(n) <= b.addr+b.f.BARSize(b.bar) {
			return b, true
		}
	}
	return mappedBAR{}, false
}

// Vector is one MSI line: an eventfd.
type Vector struct {
	fd int

	mu     sync.Mutex
	routed bool
	addr   uint64
	data   uint32
	sets   int
	closed bool
}

// Signal implements pci.Vector.
func (v *Vector) Signal() { signal(v.fd) }

// SetRoute implements pci.Vector.
func (v *Vector) SetRoute(addr uint64, data uint32) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if addr>>20 != 0xfee {
		return fmt.Errorf("message address %#x is no local APIC's", addr)
	}
	v.routed, v.addr, v.data = true, addr, data
	v.sets++
	return nil
}

// Route returns the message; ok is false before SetRoute.
func (v *Vector) Route() (addr uint64, data uint32, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.addr, v.data, v.routed
}

// Close implements pci.Vector.
func (v *Vector) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return errors.New("vector closed twice")
	}
	v.closed = true
	return unix.Close(v.fd)
}

// Take returns how many interrupts were raised since the last call.
func (v *Vector) Take() int { return Drain(v.fd) }

// Wait waits for an interrupt and takes it; false if none comes in time.
func (v *Vector) Wait(timeout time.Duration) bool {
	return WaitReadable(v.fd, timeout) && v.Take() > 0
}

// WaitReadable waits until fd is readable.
func WaitReadable(fd int, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll(p, int((left+time.Millisecond-1)/time.Millisecond))
		if n > 0 {
			return true
		}
		if err != unix.EINTR && left == 0 {
			return false
		}
	}
}

// Drain reads an eventfd's count.
func Drain(fd int) int {
	var b [8]byte
	if n, err := unix.Read(fd, b[:]); n != 8 || err != nil {
		return 0
	}
	return int(binary.LittleEndian.Uint64(b[:]))
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0} // not on the stack: Signal must not allocate

func signal(fd int) {
	unix.Write(fd, one) //nolint:errcheck // full is signalled too
}

// RouteSets returns how often the route was set.
func (v *Vector) RouteSets() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sets
}
