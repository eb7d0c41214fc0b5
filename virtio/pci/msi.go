package pci

import (
	"encoding/binary"
	"sync"
)

// The MSI capability with one message and a 64-bit address, without masking (PCI 3.0, 6.8.1).
const (
	capMSI = 0x05

	msiControl   = 2 // offsets from the capability
	msiAddress   = 4
	msiData      = 12
	msiSize      = 14
	msiEnable    = 1 << 0
	msiControl64 = 1 << 7
)

// msi is the MSI capability of a function whose interrupts are rare: the machine's
// line is taken, and told the message, when the first one is signalled. A guest that
// boots costs the machine nothing for it.
type msi struct {
	config *Config
	host   Host
	cap    int

	mu   sync.Mutex
	line Vector // nil before the first interrupt
}

func newMSI(c *Config, host Host) *msi {
	body := make([]byte, msiSize-2)
	body[0] = msiControl64
	writable := make([]byte, len(body))
	writable[0] = msiEnable
	le := binary.LittleEndian
	le.PutUint64(writable[msiAddress-2:], ^uint64(3))
	le.PutUint16(writable[msiData-2:], 0xffff)
	return &msi{config: c, host: host, cap: c.AddCapability(Capability{ID: capMSI, Body: body, Writable: writable})}
}

// enabled reports whether the function may send its message: it is a memory write,
// so bus mastering has to be on (PCI 3.0, 6.2.2).
func (m *msi) enabled() bool {
	var b [2]byte
	m.config.Bytes(m.cap+msiControl, b[:])
	return b[0]&msiEnable != 0 && m.config.Command()&CommandBusMaster != 0
}

// signal sends the message as the guest has programmed it. Any goroutine.
func (m *msi) signal() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.line == nil {
		line, err := m.host.NewVector()
		if err != nil {
			return err
		}
		m.line = line
	}
	var b [msiSize]byte
	m.config.Bytes(m.cap, b[:])
	le := binary.LittleEndian
	if err := m.line.SetRoute(le.Uint64(b[msiAddress:]), uint32(le.Uint16(b[msiData:]))); err != nil {
		return err
	}
	m.line.Signal()
	return nil
}

// close gives the machine's line back. Nothing may call signal any more.
func (m *msi) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.line == nil {
		return nil
	}
	err := m.line.Close()
	m.line = nil
	return err
}
