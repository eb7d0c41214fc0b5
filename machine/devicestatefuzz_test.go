package machine

import (
	"encoding/json"
	"testing"

	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// FuzzLoadDevices loads what somebody sent, resets the drivers, and takes it apart.
func FuzzLoadDevices(f *testing.F) {
	mem := virtiotest.NewMemory(f, virtiotest.Range{Base: 0, Size: 1 << 20})
	disks := diskImages(f, 2)
	r := newStateHost(f, mem, disks)
	r.h.slots[0].insert(r.m.disks[1])
	f.Add(r.save(), uint16(0), byte(0))
	r.slotControl(0, powerOn)
	virtiotest.Probe(f, mem, r.hosts[0], r.h.disks[0].transport).Start(virtiotest.Setup{})
	virtiotest.Probe(f, mem, r.hosts[1], r.h.slots[0].device.transport).Prepare(virtiotest.Setup{})
	f.Add(r.save(), uint16(0x104), byte(7))
	f.Add([]byte(`{"Disks":[{"ID":"a"}],"Slots":[{},{}]}`), uint16(0), byte(0))
	r.close()
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		var s devicesState
		if json.Unmarshal(b, &s) != nil {
			return
		}
		// Within the base64 a mutation hardly gets to the configuration spaces.
		i, off := int(at>>8), int(at&0xff)
		switch {
		case i < len(s.Disks) && off < len(s.Disks[i].Device.Config.Data):
			s.Disks[i].Device.Config.Data[off] ^= flip
		case i-len(s.Disks) >= 0 && i-len(s.Disks) < len(s.Slots) && off < len(s.Slots[i-len(s.Disks)].Port.Data):
			s.Slots[i-len(s.Disks)].Port.Data[off] ^= flip
		}
		mem.Reset()
		n := newStateHost(t, mem, disks)
		if n.h.loadDevices(s, n.m.disks) != nil {
			return
		}
		n.h.resumedDevices()
		n.h.resume()
		for _, a := range n.h.devices() {
			a.transport.WriteBAR(0, 0x14, []byte{0}) // the driver resets it
		}
	})
}
