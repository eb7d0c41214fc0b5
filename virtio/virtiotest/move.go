package virtiotest

import "github.com/ebb-vmm/ebb/virtio/pci"

// Move goes on with the device as another host has it, on the same memory: the guest
// doesn't notice.
func (d *Driver) Move(host *Host, f pci.Function) {
	d.Host, d.F = host, f
	for _, q := range d.Queues {
		if q.vector != nil {
			q.vector = host.Vector(MSIData + uint32(q.Index) + 1)
		}
	}
}
