package pci

// Function is one PCI function, what the bus routes accesses to. Every method
// may be called by several vCPU goroutines at once and never blocks on I/O.
type Function interface {
	// ReadConfig fills p (1, 2 or 4 bytes) from configuration space at off.
	// off+len(p) <= 4096; the function has no extended capabilities, so beyond
	// 256 it reads as zeroes.
	ReadConfig(off int, p []byte)

	// WriteConfig stores p (1, 2 or 4 bytes) at off. What is not writable stays.
	WriteConfig(off int, p []byte)

	// BARSize returns the size in bytes of a BAR, a power of two, or 0 if it is
	// not implemented. All BARs are 32-bit memory, not prefetchable.
	BARSize(bar int) uint64

	// ReadBAR and WriteBAR are guest accesses of len(p) bytes (1 to 8) at byte off
	// of a mapped BAR. off+len(p) <= BARSize(bar).
	ReadBAR(bar int, off uint64, p []byte)
	WriteBAR(bar int, off uint64, p []byte)
}

// Host is the machine as a function sees it.
type Host interface {
	// MapBAR makes guest accesses at [addr, addr+BARSize) reach ReadBAR and
	// WriteBAR. addr 0 ends that (decoding is off). A function unmaps a BAR before
	// it maps it elsewhere. An error (the range is taken) leaves it unmapped.
	MapBAR(f Function, bar int, addr uint64) error

	// AddIOEventFD makes a guest store of any size at addr signal fd without an
	// exit to user space; RemoveIOEventFD ends it.
	AddIOEventFD(addr uint64, fd int) error
	RemoveIOEventFD(addr uint64, fd int) error

	// NewVector returns a new MSI line: an irqfd and its route.
	NewVector() (Vector, error)
}

// Vector is one MSI line of the machine.
type Vector interface {
	// Signal raises the interrupt: any goroutine, no lock, no allocation.
	Signal()

	// SetRoute sets the message KVM delivers on Signal.
	SetRoute(addr uint64, data uint32) error

	// Close gives the line back. Nothing may call Signal any more.
	Close() error
}

// Bare is a function that is configuration space and nothing else: no BAR, no
// interrupt. A host bridge is one.
type Bare struct{ *Config }

var _ Function = Bare{}

func (b Bare) ReadConfig(off int, p []byte)       { b.Read(off, p) }
func (b Bare) WriteConfig(off int, p []byte)      { b.Write(off, p) }
func (b Bare) ReadBAR(_ int, _ uint64, p []byte)  { clear(p) }
func (b Bare) WriteBAR(_ int, _ uint64, p []byte) {}
