package pci

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	capMSIX = 0x11

	msixEnable       = 1 << 15
	msixFunctionMask = 1 << 14

	// MSIXEntrySize is the size of a table entry in bytes: address (8), data (4), vector control (4).
	MSIXEntrySize = 16

	// MaxVectors is the most vectors a function may have (11-bit table size).
	MaxVectors = 2048

	// NoVector is not a table entry: "no interrupt" wherever a driver names one.
	NoVector = 0xffff

	entryMasked = 1 // vector control
)

// State of a vector, one atomic word: the only thing Signal looks at.
//
//	            Signal                    mask written
//	open ──────────────────▶ delivered    open ────────▶ closed
//	closed ────────────────▶ pending      closed, pending: stay
//	off ───────────────────▶ dropped      unmasked: pending ──▶ delivered, open
const (
	vectorOff     = iota // MSI-X is disabled: there is nobody to tell
	vectorClosed         // masked, by itself or with the function
	vectorPending        // masked, and signalled meanwhile: its PBA bit is set
	vectorOpen           // delivered at once
)

// MSIX is the MSI-X capability of a function: its table and pending bits, which
// live in one of the function's BARs, and the machine's lines behind them.
type MSIX struct {
	config *Config
	host   Host
	cap    int // offset of the capability
	failed func(error)

	mu      sync.Mutex // table, lines, transitions between states
	entries []entry
}

type entry struct {
	state atomic.Uint32
	line  Vector // written before the state first becomes open, then fixed

	addr   uint64
	data   uint32
	masked bool

	routed    bool
	routeAddr uint64
	routeData uint32
}

// NewMSIX adds an MSI-X capability with n vectors to c. Table and pending bits are
// at the given byte offsets of one BAR (multiples of 8); whoever owns the BAR
// passes accesses there on to ReadTable, WriteTable and ReadPBA, and the owner of
// c's command register calls Update after it was written. failed, if set, is told
// why a vector can't be delivered (the machine has no line, or refuses the message).
func NewMSIX(c *Config, host Host, n, bar int, table, pba uint32, failed func(error)) *MSIX {
	if n < 1 || n > MaxVectors || table%8 != 0 || pba%8 != 0 {
		panic(fmt.Sprintf("pci: MSI-X with %d vectors, table at %#x, PBA at %#x", n, table, pba))
	}
	m := &MSIX{config: c, host: host, failed: failed, entries: make([]entry, n)}
	for i := range m.entries {
		m.entries[i].masked = true // the state after reset (PCI 3.0, 6.8.2.9)
	}
	body := make([]byte, 10)
	le := binary.LittleEndian
	le.PutUint16(body[0:], uint16(n-1))
	le.PutUint32(body[2:], table|uint32(bar))
	le.PutUint32(body[6:], pba|uint32(bar))
	m.cap = c.AddCapability(Capability{
		ID:       capMSIX,
		Body:     body,
		Writable: []byte{0, (msixEnable | msixFunctionMask) >> 8},
		Written:  m.Update,
	})
	return m
}

// Len returns the number of vectors.
func (m *MSIX) Len() int { return len(m.entries) }

// TableSize returns what the table takes in the BAR, in bytes.
func (m *MSIX) TableSize() uint64 { return uint64(len(m.entries)) * MSIXEntrySize }

// Enabled reports whether the guest uses MSI-X.
func (m *MSIX) Enabled() bool { return m.control()&msixEnable != 0 }

func (m *MSIX) control() uint16 {
	var b [2]byte
	m.config.Bytes(m.cap+2, b[:])
	return binary.LittleEndian.Uint16(b[:])
}

// Signal raises vector v, or sets its pending bit if it is masked. Without MSI-X,
// and for NoVector, it does nothing. Any goroutine; no lock, no allocation.
func (m *MSIX) Signal(v uint16) {
	if int(v) >= len(m.entries) {
		return
	}
	e := &m.entries[v]
	for {
		switch e.state.Load() {
		case vectorOpen:
			e.line.Signal()
			return
		case vectorClosed:
			if e.state.CompareAndSwap(vectorClosed, vectorPending) {
				return
			}
		default:
			return
		}
	}
}

// Allocate makes sure vector v has a line of the machine's.
func (m *MSIX) Allocate(v uint16) error {
	if int(v) >= len(m.entries) {
		return fmt.Errorf("vector %d of %d", v, len(m.entries))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.allocate(&m.entries[v])
}

func (m *MSIX) allocate(e *entry) error {
	if e.line != nil {
		return nil
	}
	line, err := m.host.NewVector()
	if err != nil {
		return err
	}
	e.line = line
	return nil
}

// Update follows a change of the MSI-X control word or of the command register.
func (m *MSIX) Update() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.entries {
		m.settle(&m.entries[i])
	}
}

// settle brings an entry's route and state in line with the registers; m.mu is
// held. The registers are read here, under the lock, so that of two vCPUs writing
// at once the later settle sees both.
func (m *MSIX) settle(e *entry) {
	control := m.control()
	switch {
	case control&msixEnable == 0:
		e.state.Store(vectorOff) // pending bits go too: nobody may read them now
	case control&msixFunctionMask != 0 || e.masked || m.config.Command()&CommandBusMaster == 0 || !m.route(e):
		// A message is a memory write: without bus mastering it has to wait like a masked one.
		if s := e.state.Load(); s == vectorOff || s == vectorOpen {
			e.state.Store(vectorClosed) // Signal never changes these two states
		}
	default:
		if e.state.Swap(vectorOpen) == vectorPending {
			e.line.Signal()
		}
	}
}

// route tells the machine the entry's message and reports whether it can be delivered.
func (m *MSIX) route(e *entry) bool {
	if e.routed && e.routeAddr == e.addr && e.routeData == e.data {
		return true
	}
	err := m.allocate(e)
	if err == nil {
		err = e.line.SetRoute(e.addr, e.data)
	}
	if err != nil {
		if m.failed != nil {
			m.failed(err)
		}
		return false
	}
	e.routed, e.routeAddr, e.routeData = true, e.addr, e.data
	return true
}

// ReadTable and WriteTable access the table at byte off. Accesses are 4 or 8 bytes
// and aligned (PCI 3.0, 6.8.2); others read as zeroes and write nothing.
func (m *MSIX) ReadTable(off uint64, p []byte) {
	clear(p)
	if !tableAccess(off, len(p)) || off+uint64(len(p)) > m.TableSize() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &m.entries[off/MSIXEntrySize]
	var b [MSIXEntrySize]byte
	e.put(&b)
	copy(p, b[off%MSIXEntrySize:])
}

func (m *MSIX) WriteTable(off uint64, p []byte) {
	if !tableAccess(off, len(p)) || off+uint64(len(p)) > m.TableSize() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &m.entries[off/MSIXEntrySize]
	var b [MSIXEntrySize]byte
	e.put(&b)
	copy(b[off%MSIXEntrySize:], p)
	le := binary.LittleEndian
	e.addr = le.Uint64(b[0:]) &^ 3
	e.data = le.Uint32(b[8:])
	e.masked = le.Uint32(b[12:])&entryMasked != 0
	m.settle(e)
}

func (e *entry) put(b *[MSIXEntrySize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.addr)
	le.PutUint32(b[8:], e.data)
	if e.masked {
		le.PutUint32(b[12:], entryMasked)
	}
}

func tableAccess(off uint64, n int) bool {
	return n == 4 && off%4 == 0 || n == 8 && off%8 == 0
}

// ReadPBA reads pending bits; writes to them have no effect, so there is no WritePBA.
func (m *MSIX) ReadPBA(off uint64, p []byte) {
	clear(p)
	for i := range p {
		for bit := range 8 {
			v := (off+uint64(i))*8 + uint64(bit)
			if v < uint64(len(m.entries)) && m.entries[v].state.Load() == vectorPending {
				p[i] |= 1 << bit
			}
		}
	}
}

// Close gives the machine's lines back. Nothing may call Signal any more.
func (m *MSIX) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first error
	for i := range m.entries {
		e := &m.entries[i]
		e.state.Store(vectorOff)
		if e.line == nil {
			continue
		}
		if err := e.line.Close(); err != nil && first == nil {
			first = err
		}
		e.line, e.routed = nil, false
	}
	return first
}
