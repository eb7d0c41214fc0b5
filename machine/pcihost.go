package machine

import (
	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// host is the machine as one function sees it. Each function has its own, which
// knows where its BARs are.
type host struct {
	bus   *pciBus
	front pci.Function // takes BAR accesses in the function's place, if set
	bars  [6]uint64
}

// MapBAR implements pci.Host. A function does not call it twice at once.
func (h *host) MapBAR(f pci.Function, n int, addr uint64) error {
	if old := h.bars[n]; old != 0 {
		h.bus.mmio.Remove(old)
		h.bars[n] = 0
	}
	if addr == 0 {
		return nil
	}
	if h.front != nil {
		f = h.front
	}
	if err := h.bus.mmio.Add(addr, f.BARSize(n), bar{f, n}); err != nil {
		return err
	}
	h.bars[n] = addr
	return nil
}

// AddIOEventFD implements pci.Host.
func (h *host) AddIOEventFD(addr uint64, fd int) error {
	return h.bus.vm.AssignIOEventFD(kvm.IOEventFD{Addr: addr, FD: fd})
}

// RemoveIOEventFD implements pci.Host.
func (h *host) RemoveIOEventFD(addr uint64, fd int) error {
	return h.bus.vm.DeassignIOEventFD(kvm.IOEventFD{Addr: addr, FD: fd})
}

// NewVector implements pci.Host.
func (h *host) NewVector() (pci.Vector, error) { return h.bus.irqs.newVector() }
