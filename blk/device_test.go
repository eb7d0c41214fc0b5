package blk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// machine is an engine and the guest memory its disks share.
type machine struct {
	*testing.T
	engine *aio.Engine
	mem    *virtiotest.Memory
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	e, err := aio.New(aio.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{T: t, mem: virtiotest.NewMemory(t)}
	m.engine = e
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// disk is one disk of a machine, on a file, with its driver.
type disk struct {
	*machine
	path string
	img  *Image
	dev  *Device
	d    *virtiotest.Driver
}

const fileSize = 1 << 20

func (m *machine) disk(name string, o ImageOptions, cfg Config) *disk {
	m.Helper()
	path := filepath.Join(m.TempDir(), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte("disk"), fileSize/4), 0o600); err != nil {
		m.Fatal(err)
	}
	return m.diskOn(path, name, o, cfg)
}

func (m *machine) diskOn(path, name string, o ImageOptions, cfg Config) *disk {
	m.Helper()
	k := m.diskFrom(name, func() (*Image, error) { return OpenImage(path, o) }, cfg)
	k.path = path
	return k
}

func (m *machine) diskFrom(name string, open func() (*Image, error), cfg Config) *disk {
	m.Helper()
	k := &disk{machine: m}
	var err error
	if k.img, err = open(); err != nil {
		m.Fatal(err)
	}
	cfg.ID, cfg.Image, cfg.Engine = name, k.img, m.engine
	if k.dev, err = New(cfg); err != nil {
		m.Fatal(err)
	}
	host := virtiotest.NewHost(m)
	p, err := virtio.NewPCI(k.dev, m.mem, host, nil)
	if err != nil {
		m.Fatal(err)
	}
	k.d = virtiotest.Probe(m, m.mem, host, p)
	m.Cleanup(func() {
		k.d.Reset()
		if err := errors.Join(p.Close(), k.img.Close()); err != nil {
			m.Error(err)
		}
	})
	return k
}

// do makes a request on queue 0, waits for its interrupt and returns its status,
// used length and data.
func (k *disk) do(typ uint32, sector uint64, payload []byte, room int) (status byte, n uint32, data []byte) {
	k.Helper()
	q := k.d.Queues[0]
	rq := sendOn(k.mem, q, typ, sector, payload, room)
	q.KickIfWanted()
	head, n := q.Wait()
	if head != rq.head {
		k.Fatalf("got back %d instead of %d", head, rq.head)
	}
	return k.mem.RAM(rq.status, 1)[0], n, k.mem.RAM(rq.data, uint64(room))
}

func (k *disk) expect(what string, status byte, typ uint32, sector uint64, payload []byte, room int) []byte {
	k.Helper()
	got, _, data := k.do(typ, sector, payload, room)
	if got != status {
		k.Errorf("%s: status %d, want %d", what, got, status)
	}
	return data
}

// The whole way: driver, rings, device, engine, file.
func TestDisk(t *testing.T) {
	for _, o := range []ImageOptions{{}, {Direct: true}} {
		for _, features := range []uint64{0, virtio.FeatureVersion1 | featFlush, virtio.FeatureVersion1 | virtio.FeatureEventIdx | featFlush | featConfigWCE | featDiscard | featWriteZeroes} {
			t.Run(fmt.Sprintf("%+v %#x", o, features), func(t *testing.T) {
				m := newMachine(t)
				k := m.disk("vda", o, Config{Serial: "serial-of-vda", QueueSize: 16})
				k.d.Start(virtiotest.Setup{Features: features})
				payload := bytes.Repeat([]byte("ebb!"), 8192/4)
				k.expect("write", statusOK, typeOut, 16, payload, 0)
				if got := k.expect("read", statusOK, typeIn, 8, nil, 16384); !bytes.Equal(got[4096:12288], payload) || !bytes.HasPrefix(got, []byte("disk")) || !bytes.HasSuffix(got, []byte("disk")) {
					t.Error("read returned something else")
				}
				k.expect("flush", statusOK, typeFlush, 0, nil, 0)
				k.expect("flush, then id", statusOK, typeGetID, 0, nil, 20)
				if _, n, data := k.do(typeGetID, 0, nil, 20); n != 21 || string(bytes.TrimRight(data, "\x00")) != "serial-of-vda" {
					t.Errorf("id %q, %d bytes", data, n)
				}
				k.expect("unknown", statusUnsupp, 77, 0, nil, 0)
				k.expect("beyond the end", statusIOErr, typeIn, fileSize/512, nil, 4096)
				file, err := os.ReadFile(k.path)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(file[8192:16384], payload) {
					t.Error("file holds something else")
				}
				if k.d.DeviceFeatures()&featWriteZeroes != 0 && features != virtio.FeatureVersion1|featFlush {
					k.expect("zeroes", statusOK, typeWriteZeroes, 0, extentBytes(16, 8, 1), 0)
					if got := k.expect("read zeroes", statusOK, typeIn, 16, nil, 8192); !bytes.Equal(got[:4096], make([]byte, 4096)) || !bytes.Equal(got[4096:], payload[4096:]) {
						t.Error("zeroes don't read back as zeroes")
					}
					k.expect("discard", statusOK, typeDiscard, 0, extentBytes(0, 8, 0), 0)
				}
				if st, _ := os.Stat(k.path); st.Size() != fileSize {
					t.Errorf("file has %d bytes now", st.Size())
				}
			})
		}
	}
}

// Queues are served each for itself; num_queues says how many there are.
func TestManyQueues(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{Queues: 4, QueueSize: 8})
	k.d.Start(virtiotest.Setup{})
	if n := binary.LittleEndian.Uint16(k.d.DeviceConfig(cfgNumQueues, 2)); n != 4 || len(k.d.Queues) != 4 {
		t.Fatalf("num_queues %d, %d set up", n, len(k.d.Queues))
	}
	if k.engine.Stats().Demand != 32 {
		t.Errorf("demand %d for 4 queues of 8", k.engine.Stats().Demand)
	}
	var sent [4]request
	for i, q := range k.d.Queues {
		sent[i] = sendOn(m.mem, q, typeIn, uint64(i), nil, 512)
		q.KickIfWanted()
	}
	for i, q := range k.d.Queues {
		if head, n := q.Wait(); head != sent[i].head || n != 513 {
			t.Errorf("queue %d: %d, %d bytes", i, head, n)
		}
	}
}

// More requests than fit in the ring at once, kicked only when the device wants it.
func TestManyRequests(t *testing.T) {
	for _, o := range []ImageOptions{{}, {Direct: true}} {
		m := newMachine(t)
		k := m.disk("vda", o, Config{QueueSize: 64})
		k.d.Start(virtiotest.Setup{})
		q := k.d.Queues[0]
		head, data, status := m.mem.Alloc(headerSize, 16), m.mem.Alloc(4096, 4096), m.mem.Alloc(1, 1)
		copy(m.mem.RAM(head, headerSize), headerBytes(typeIn, 8))
		b := []virtiotest.Buf{{Addr: head, Len: headerSize}, {Addr: data, Len: 4096, Write: true}, {Addr: status, Len: 1, Write: true}}
		const total = 5000
		for sent, got := 0, 0; got < total; {
			for sent < total && q.Outstanding() < 64/3 {
				q.Add(b...)
				sent++
			}
			q.KickIfWanted()
			if _, n := q.Wait(); n != 4097 {
				t.Fatalf("%d bytes", n)
			}
			got++
		}
	}
}

// The image is cut short under the guest: those requests fail, the disk lives on.
func TestTruncatedUnderGuest(t *testing.T) {
	var log syncBuffer
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	k.d.Start(virtiotest.Setup{})
	if err := os.Truncate(k.path, 4096); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		k.expect("read of what is gone", statusIOErr, typeIn, 64, nil, 4096)
	}
	k.expect("read of what is left", statusOK, typeIn, 0, nil, 4096)
	virtiotest.Eventually(t, "the failure is logged", func() bool { return strings.Contains(log.String(), "disk=vda") })
	if n := strings.Count(log.String(), "\n"); n > 10 {
		t.Errorf("%d lines for 100 failures", n)
	}
	if k.d.Status() != 1|2|4|8 {
		t.Errorf("status %#x", k.d.Status())
	}
}

// One guest disk is broken by its driver; the other one, on the same engine, goes on.
func TestOtherDisksGoOn(t *testing.T) {
	m := newMachine(t)
	bad, good := m.disk("vda", ImageOptions{}, Config{}), m.disk("vdb", ImageOptions{}, Config{})
	bad.d.Start(virtiotest.Setup{})
	good.d.Start(virtiotest.Setup{})
	q := bad.d.Queues[0]
	q.SetDesc(0, 0x1000, 16, virtiotest.Next, 0) // a loop
	q.Push(0)
	q.Kick()
	virtiotest.Eventually(t, "the disk needs a reset", func() bool { return bad.d.Status()&virtio.StatusNeedsReset != 0 })
	good.expect("read", statusOK, typeIn, 0, nil, 512)
	bad.d.Start(virtiotest.Setup{})
	bad.expect("read after a reset", statusOK, typeIn, 0, nil, 512)
}

// A disk is reset with requests in its queues again and again (a guest that
// reboots, unloads its driver): no request is lost in the engine, the demand goes and comes back.
func TestResetUnderLoad(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{QueueSize: 64})
	data := m.mem.Alloc(64<<10, 4096)
	for range 50 {
		k.d.Start(virtiotest.Setup{})
		q := k.d.Queues[0]
		head, status := m.mem.Put(headerBytes(typeIn, 0)), m.mem.Put([]byte{noStatus})
		for range 20 {
			q.Add(virtiotest.Buf{Addr: head, Len: headerSize}, virtiotest.Buf{Addr: data, Len: 64 << 10, Write: true}, virtiotest.Buf{Addr: status, Len: 1, Write: true})
		}
		q.Kick()
		k.d.Reset()
		if d := k.engine.Stats().Demand; d != 0 {
			t.Fatalf("demand %d after a reset", d)
		}
		used := q.UsedIdx()
		copy(m.mem.RAM(data, 4), "mine") // the driver may use its memory for something else now
		if got := string(m.mem.RAM(data, 4)); got != "mine" || q.UsedIdx() != used {
			t.Fatalf("device wrote after its reset: %q", got)
		}
		m.mem.Reset()
		data = m.mem.Alloc(64<<10, 4096)
	}
}

// Pause takes nothing more and returns when nothing is in flight; Resume finds
// what came meanwhile.
func TestPause(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	ctx, cancel := context.WithTimeout(context.Background(), virtiotest.Deadline)
	defer cancel()
	if err := k.dev.Pause(ctx); err != nil { // before there is a driver
		t.Fatal(err)
	}
	k.d.Start(virtiotest.Setup{})
	q := k.d.Queues[0]
	rq := sendOn(m.mem, q, typeIn, 0, nil, 512)
	q.Kick()
	held := func(when string) {
		t.Helper()
		// The engine has looked at the kick when it answers something posted after it.
		if err := k.dev.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		if s, ok := k.dev.Stats(); !ok || s.InFlight != 0 || q.UsedIdx() != 0 {
			t.Errorf("%s: a paused disk works", when)
		}
	}
	held("activated while paused")
	held("paused twice")
	k.dev.Resume()
	if head, n := q.Wait(); head != rq.head || n != 513 {
		t.Errorf("after Resume: %d, %d bytes", head, n)
	}
	if err := k.dev.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	used := q.UsedIdx()
	rq = sendOn(m.mem, q, typeIn, 0, nil, 512)
	q.Kick()
	if err := k.dev.Pause(ctx); err != nil || q.UsedIdx() != used {
		t.Errorf("paused disk works: %v", err)
	}
	k.d.Reset() // also while it is paused
	if _, ok := k.dev.Stats(); ok {
		t.Error("a reset disk has a port")
	}
	k.dev.Resume()
	k.d.Start(virtiotest.Setup{})
	k.expect("read", statusOK, typeIn, 0, nil, 512)
}

func TestNewRefuses(t *testing.T) {
	m := newMachine(t)
	img := testImage()
	for want, cfg := range map[string]Config{
		"no image":          {Engine: m.engine},
		"no engine":         {Image: img},
		"queues=-1":         {Image: img, Engine: m.engine, Queues: -1},
		"queues=99999":      {Image: img, Engine: m.engine, Queues: 99999},
		"queue-size=100":    {Image: img, Engine: m.engine, QueueSize: 100},
		"queue-size=2 ":     {Image: img, Engine: m.engine, QueueSize: 2},
		"queue-size=2048":   {Image: img, Engine: m.engine, QueueSize: 2048},
		"serial=abcdefghij": {Image: img, Engine: m.engine, Serial: "abcdefghijklmnopqrstu"},
	} {
		cfg.ID = "vda"
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "vda") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSerialDefaultsToID(t *testing.T) {
	m := newMachine(t)
	d, err := New(Config{ID: "a-very-long-name-of-a-disk", Image: testImage(), Engine: m.engine})
	if err != nil {
		t.Fatal(err)
	}
	if string(d.serial[:]) != "a-very-long-name-of-" || len(d.QueueSizes()) != 1 || d.QueueSizes()[0] != 256 {
		t.Errorf("serial %q, queues %v", d.serial, d.QueueSizes())
	}
}

// The engine is gone: the driver learns that the device can't start.
func TestActivateWithoutEngine(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	if err := m.engine.Close(); err != nil {
		t.Fatal(err)
	}
	k.d.Start(virtiotest.Setup{})
	if k.d.Status()&virtio.StatusNeedsReset == 0 {
		t.Error("device does not need a reset")
	}
}

// Pause gives up with its context and leaves the disk running. There is no slow
// disk at hand, so the context has ended before; what was in flight may or may not be done.
func TestPauseGivesUp(t *testing.T) {
	m := newMachine(t)
	k := m.disk("vda", ImageOptions{}, Config{})
	k.d.Start(virtiotest.Setup{})
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	if err := k.dev.Pause(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	} else if err == nil {
		k.dev.Resume()
	}
	k.expect("read", statusOK, typeIn, 0, nil, 512)
}
