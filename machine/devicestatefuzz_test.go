package machine

import (
	"testing"

	"github.com/ebb-vmm/ebb/machine/plain"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// FuzzLoadDevices loads what somebody sent, resets the drivers, and takes it apart.
func FuzzLoadDevices(f *testing.F) {
	mem := virtiotest.NewMemory(f, virtiotest.Range{Base: 0, Size: 1 << 20})
	disks := diskImages(f, 2)
	r := newStateHost(f, mem, disks)
	r.h.slots[0].insert(r.m.disks[1])
	f.Add(r.save())
	r.slotControl(0, powerOn)
	virtiotest.Probe(f, mem, r.hosts[0], r.h.disks[0].transport).Start(virtiotest.Setup{})
	virtiotest.Probe(f, mem, r.hosts[1], r.h.slots[0].device.transport).Prepare(virtiotest.Setup{})
	f.Add(r.save())
	f.Add(plain.Marshal(devicesState{Disks: []diskState{{ID: "a"}}, Slots: make([]slotState, 2)}))
	r.close()
	f.Fuzz(func(t *testing.T, b []byte) {
		var s devicesState
		if plain.Unmarshal(b, &s) != nil {
			return
		}
		mem.Reset()
		n := newStateHost(t, mem, disks)
		if n.h.loadDevices(s, n.m.disks) != nil {
			return
		}
		n.h.resumedDevices()
		n.h.resume(byUser)
		for _, a := range n.h.devices() {
			a.transport.WriteBAR(0, 0x14, []byte{0}) // the driver resets it
		}
	})
}
