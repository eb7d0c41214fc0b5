package machine

import (
	"sync"

	"github.com/ebb-vmm/ebb/virtio/pci"
)

// card is a function that can be pulled while vCPUs access it. From pull on nothing
// reaches the function, not even an access that found it before: what comes too late
// reads as ones, like an access to where nothing is.
type card struct {
	access sync.RWMutex // held for reading by vCPUs inside the function
	pulled bool
	f      pci.Function
}

var _ pci.Function = (*card)(nil)

// pull returns when no vCPU is inside the function. It may have to wait for the
// engine, as a vCPU that activates a device does: not to be called on a vCPU's thread.
func (c *card) pull() {
	c.access.Lock()
	defer c.access.Unlock()
	c.pulled = true
}

// enter reports whether the function is there; leave has to be called either way.
func (c *card) enter() bool {
	c.access.RLock()
	return !c.pulled
}

func (c *card) leave() { c.access.RUnlock() }

// ReadConfig implements pci.Function.
func (c *card) ReadConfig(off int, p []byte) {
	defer c.leave()
	if c.enter() {
		c.f.ReadConfig(off, p)
	} else {
		ones(p)
	}
}

// WriteConfig implements pci.Function.
func (c *card) WriteConfig(off int, p []byte) {
	defer c.leave()
	if c.enter() {
		c.f.WriteConfig(off, p)
	}
}

// BARSize implements pci.Function.
func (c *card) BARSize(bar int) uint64 { return c.f.BARSize(bar) }

// ReadBAR implements pci.Function.
func (c *card) ReadBAR(bar int, off uint64, p []byte) {
	defer c.leave()
	if c.enter() {
		c.f.ReadBAR(bar, off, p)
	} else {
		ones(p)
	}
}

// WriteBAR implements pci.Function.
func (c *card) WriteBAR(bar int, off uint64, p []byte) {
	defer c.leave()
	if c.enter() {
		c.f.WriteBAR(bar, off, p)
	}
}
