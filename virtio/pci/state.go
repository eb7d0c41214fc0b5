package pci

import "fmt"

// ConfigState is the configuration space of a function, for migration: what a guest
// wrote, and all else too, by which it is known whether it is the same function.
type ConfigState struct {
	Data []byte // ConfigSize bytes
}

// Save returns the state. Any goroutine; the guest doesn't run.
func (c *Config) Save() ConfigState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConfigState{Data: append([]byte(nil), c.data[:]...)}
}

// Load takes a state over and maps the BARs where it says. The function's MSIX, if it
// has one, is loaded after it. It refuses the state of another function: every bit
// that neither a guest nor the function itself can change has to be as it is here.
// After an error the function can only be closed. After Bind, before the guest runs.
func (c *Config) Load(s ConfigState) error {
	if err := c.take(s); err != nil || c.bound == nil {
		return err
	}
	c.remap()
	for bar := range c.barSize {
		// A guest that put one BAR upon another has one that answers nowhere. Which of
		// them it is can't be known here, and a disk must not vanish in silence.
		if want := c.decoded(bar); c.barSize[bar] != 0 && want != c.BARAddr(bar) {
			return fmt.Errorf("BAR %d can't be mapped at %#x", bar, want)
		}
	}
	return nil
}

func (c *Config) take(s ConfigState) error {
	if len(s.Data) != ConfigSize {
		return fmt.Errorf("configuration space of %d bytes, want %d", len(s.Data), ConfigSize)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, b := range s.Data {
		if fixed := ^(c.mask[i] | c.rw1c[i] | c.owned[i]); (b^c.data[i])&fixed != 0 {
			return fmt.Errorf("configuration space has %#x at %#x, where this function has %#x: it is another one's", b, i, c.data[i])
		}
	}
	copy(c.data[:], s.Data)
	return nil
}

// MSIXState is an MSI-X table with its pending bits (PCI 3.0, 6.8.2), for migration.
// Whether MSI-X is on is in the function's ConfigState.
type MSIXState struct {
	Entries []MSIXEntry
}

// MSIXEntry is one vector.
type MSIXEntry struct {
	Addr    uint64 // of the message, a multiple of 4
	Data    uint32
	Masked  bool
	Pending bool
}

// Save returns the state. Any goroutine; the guest doesn't run.
func (m *MSIX) Save() MSIXState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := MSIXState{Entries: make([]MSIXEntry, len(m.entries))}
	for i := range m.entries {
		e := &m.entries[i]
		s.Entries[i] = MSIXEntry{Addr: e.addr, Data: e.data, Masked: e.masked, Pending: e.state.Load() == vectorPending}
	}
	return s
}

// Load takes a state over and tells the machine every message that can be sent. An
// interrupt that is pending stays so until the guest unmasks it. After the load of the
// configuration space, before the guest runs; nothing calls Signal meanwhile. After an
// error it can only be closed.
func (m *MSIX) Load(s MSIXState) error {
	if len(s.Entries) != len(m.entries) {
		return fmt.Errorf("MSI-X table of %d vectors, want %d", len(s.Entries), len(m.entries))
	}
	enabled := m.Enabled()
	for i, e := range s.Entries {
		switch {
		case e.Addr&3 != 0:
			return fmt.Errorf("MSI-X vector %d has the message address %#x, not a multiple of 4", i, e.Addr)
		case e.Pending && !enabled:
			return fmt.Errorf("MSI-X vector %d is pending, but MSI-X is off", i)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, from := range s.Entries {
		e := &m.entries[i]
		e.addr, e.data, e.masked = from.Addr, from.Data, from.Masked
		switch {
		case from.Pending:
			e.state.Store(vectorPending)
		case e.state.Load() == vectorPending: // of a load before
			e.state.Store(vectorClosed)
		}
		m.settle(e)
	}
	return nil
}

// Save returns the state of the port, which is that of its configuration space: of the
// interrupt nothing is kept, since the port has sent its message for every event there
// is. Any goroutine; the guest doesn't run, and the owner changes nothing.
func (p *RootPort) Save() ConfigState { return p.config.Save() }

// Load takes a state over, and tells neither the owner nor the guest anything: the
// owner asks Powered. Before the guest runs. After an error the port can only be closed.
func (p *RootPort) Load(s ConfigState) error {
	if err := p.config.Load(s); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = p.state()
	p.notified = p.pending() && p.msi.enabled()
	return nil
}
