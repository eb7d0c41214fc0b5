package virtio_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// FuzzLoad loads what somebody sent. What is taken is saved again as it was, and its
// queues can be run and reset.
func FuzzLoad(f *testing.F) {
	add := func(change func(*rig)) {
		r := newFuzzLoadRig(f)
		change(r)
		s, err := r.pci.Save()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encode(f, s), byte(0), byte(0))
		f.Add(encode(f, s), byte(0x43), byte(0xc0)) // MSI-X control
	}
	add(func(r *rig) {})
	add(func(r *rig) { r.d.Start(virtiotest.Setup{Features: version1}) })
	add(func(r *rig) { r.d.Prepare(virtiotest.Setup{Features: version1 | eventIdx, Skew: true}) })
	add(func(r *rig) {
		r.d.Start(virtiotest.Setup{Features: version1 | indirect})
		r.pci.NeedsReset("test")
		r.d.MaskEntry(0, true)
		r.pci.ChangeConfig(func() {})
	})
	f.Add([]byte(`{}`), byte(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at, flip byte) {
		var s virtio.PCIState
		if json.Unmarshal(b, &s) != nil {
			return
		}
		if int(at) < len(s.Config.Data) {
			s.Config.Data[at] ^= flip // within the base64 a mutation hardly gets there
		}
		r := newFuzzLoadRig(t)
		n := &rig{T: t, dev: &testDevice{sizes: r.dev.sizes}, mem: r.mem, host: virtiotest.NewHost(t)}
		var err error
		if n.pci, err = virtio.NewPCI(n.dev, n.mem, n.host, nil); err != nil {
			t.Fatal(err)
		}
		defer n.pci.Close()
		if n.pci.Load(s) != nil {
			return
		}
		again, err := n.pci.Save()
		if err != nil {
			t.Fatal(err)
		}
		s.Device = nil // this device has none, and takes none
		if got, want := encode(t, again), encode(t, s); !bytes.Equal(got, want) && !pendingAndOpen(s) {
			t.Fatalf("loaded %s\nsaved %s", want, got)
		}
		n.pci.Resumed()
		for _, q := range n.dev.queues {
			if q != nil {
				serve(q, 0)
			}
		}
	})
}

// pendingAndOpen reports whether an interrupt may be delivered by the load.
func pendingAndOpen(s virtio.PCIState) bool {
	for _, e := range s.MSIX.Entries {
		if e.Pending && !e.Masked {
			return true
		}
	}
	return false
}

func newFuzzLoadRig(t testing.TB) *rig {
	t.Helper()
	mem := virtiotest.NewMemory(t, virtiotest.Range{Base: 0, Size: fuzzRAM})
	r := &rig{dev: &testDevice{sizes: []uint16{8, 8}}, mem: mem, host: virtiotest.NewHost(t)}
	var err error
	if r.pci, err = virtio.NewPCI(r.dev, mem, r.host, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.pci.Close() }) //nolint:errcheck // checked elsewhere
	r.d = virtiotest.Probe(t, mem, r.host, r.pci)
	return r
}
