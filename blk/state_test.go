package blk

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// moved carries a disk to another device on the same image, under its driver, and
// returns it holding.
func (k *disk) moved(p *virtio.PCI) *virtio.PCI {
	k.Helper()
	s, err := p.Save()
	if err != nil {
		k.Fatal(err)
	}
	dev, err := New(Config{ID: k.dev.id, Image: k.img, Engine: k.engine})
	if err != nil {
		k.Fatal(err)
	}
	host := virtiotest.NewHost(k)
	n, err := virtio.NewPCI(dev, k.mem, host, nil)
	if err == nil {
		err = errors.Join(dev.Pause(k.Context()), n.Load(s))
	}
	if err != nil {
		k.Fatal(err)
	}
	again, err := n.Save()
	if err != nil {
		k.Fatal(err)
	}
	a, _ := json.Marshal(s)
	if b, _ := json.Marshal(again); string(a) != string(b) {
		k.Errorf("saved %s\nloaded and saved again %s", a, b)
	}
	done := make(chan struct{})
	k.dev.Reset(func() { close(done) })
	<-done
	k.dev = dev
	k.d.Move(host, n)
	k.Cleanup(func() {
		k.d.Reset()
		if err := n.Close(); err != nil {
			k.Error(err)
		}
	})
	return n
}

// A disk is moved with requests in its queue: they are carried out on the other side
// when it is resumed, not before, and a disk that was writethrough still is.
func TestStateOfADisk(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	k.d.Start(virtiotest.Setup{})
	k.d.SetDeviceConfig(cfgWriteback, 0)
	k.expect("before", statusOK, typeOut, 0, []byte(strings.Repeat("before..", 64)), 0)
	p := k.d.F.(*virtio.PCI)
	for round := range 5 {
		if err := k.dev.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		data := []byte(strings.Repeat(string(rune('a'+round)), 512))
		q := k.d.Queues[0]
		rq := sendOn(m.mem, q, typeOut, 1, data, 0)
		q.KickIfWanted()
		p = k.moved(p)
		if s, ok := k.dev.Stats(); !ok || s.InFlight != 0 || q.UsedIdx() != uint16(round*2+1) {
			t.Fatalf("round %d: active %v, %d in flight, used idx %d: it does not hold", round, ok, s.InFlight, q.UsedIdx())
		}
		if !k.dev.durable.Load() || k.d.DeviceConfig(cfgWriteback, 1)[0] != 0 {
			t.Error("writeback after the move")
		}
		p.Resumed()
		k.dev.Resume()
		if head, _ := q.Wait(); head != rq.head || m.mem.RAM(rq.status, 1)[0] != statusOK {
			t.Fatalf("round %d: head %d, status %d", round, head, m.mem.RAM(rq.status, 1)[0])
		}
		if got := k.expect("read", statusOK, typeIn, 1, nil, 512); string(got) != string(data) {
			t.Errorf("round %d: read %.8q", round, got)
		}
	}
	b, err := os.ReadFile(k.path)
	if err != nil || string(b[512:513]) != "e" {
		t.Errorf("the image has %.8q (%v)", b[512:], err)
	}
}

func TestStateRefused(t *testing.T) {
	for _, c := range []struct {
		features uint64
		state    string
		want     string
	}{
		{featFlush | featConfigWCE, `{"Writeback":false}`, ""},
		{featConfigWCE, `{"Writeback":true}`, ""},
		{featFlush, `{"Writeback":true}`, ""},
		{featFlush, `{"Writeback":false}`, "can't have chosen"},
		{0, `{}`, "can't have chosen"},
		{featFlush, ``, "JSON"},
		{featFlush, `[`, "JSON"},
		{featFlush, `{"Writeback":7}`, "cannot unmarshal"},
	} {
		d, err := New(Config{ID: "vda", Image: testImage(), Engine: new(aio.Engine)})
		if err != nil {
			t.Fatal(err)
		}
		if c.features != 0 {
			d.Negotiated(c.features) //nolint:errcheck // takes all
		}
		if err := d.LoadState([]byte(c.state)); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("features %#x, state %s: error %v, want %q", c.features, c.state, err, c.want)
		}
	}
}
