package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/machine/chipset"
	"github.com/ebb-vmm/ebb/machine/plain"
	"github.com/ebb-vmm/ebb/virtio"
	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// stateHost is a host without KVM, with hardware that has no CPUs: disk a on bus 0 and
// two hotplug slots. The devices, the disks and their engine are real.
type stateHost struct {
	testing.TB
	m     *Machine
	mem   *virtiotest.Memory
	hosts [2]*virtiotest.Host // of disk a and of the slots; drivers tell vectors apart by their message alone
	h     *hardware
}

// newStateHost makes hardware with disk a; b, if it is to be, is in slot 1 of the machine's.
func newStateHost(t testing.TB, mem *virtiotest.Memory, disks []Disk) *stateHost {
	t.Helper()
	r := &stateHost{TB: t, m: &Machine{}, mem: mem, hosts: [2]*virtiotest.Host{virtiotest.NewHost(t), virtiotest.NewHost(t)}}
	var err error
	if r.m.engine, err = aio.New(aio.Config{}); err != nil {
		t.Fatal(err)
	}
	r.m.cfg.CPUs = 1
	for i, c := range disks {
		d := r.m.newDisk(c, i-1)
		if err := d.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.m.disks = append(r.m.disks, d)
	}
	r.h = r.hardware()
	t.Cleanup(r.close)
	return r
}

func (r *stateHost) hardware() *hardware {
	r.Helper()
	h := &hardware{
		log: slog.New(slog.DiscardHandler), gate: newGate(), over: make(chan struct{}),
		serial: chipset.NewSerial(func(bool) {}), power: chipset.NewPower(func(bool) {}, func() {}), cmos: chipset.NewCMOS(time.Now),
	}
	err := errors.Join(h.ports.Add(portSerial, 8, h.serial), h.ports.Add(portPM, chipset.PM1PortCount, h.power), h.ports.Add(portCMOS, 2, h.cmos))
	if err != nil {
		r.Fatal(err)
	}
	if h.pci, err = newPCIBus(nil, nil, &h.ports, &h.mmio, func() {}); err != nil {
		r.Fatal(err)
	}
	a, err := r.attach(r.m.disks[0], r.hosts[0])
	if err != nil {
		r.Fatal(err)
	}
	h.disks = append(h.disks, a)
	for i := range 2 {
		s := newSlot()
		s.make = func(d *disk) (*attached, error) {
			a, err := r.attach(d, r.hosts[1])
			if err == nil {
				a.card = &card{f: a.transport}
			}
			return a, err
		}
		s.gone = func(a *attached) {
			if err := h.takeApart(a); err != nil {
				r.Error(err)
			}
		}
		s.port = pci.NewRootPort(i+1, r.hosts[1], s.follow, nil)
		h.slots = append(h.slots, s)
		if err := h.pci.addSlot(i, s); err != nil {
			r.Fatal(err)
		}
	}
	return h
}

func (r *stateHost) attach(d *disk, host *virtiotest.Host) (*attached, error) {
	device, err := r.m.newDevice(d)
	if err != nil {
		return nil, err
	}
	transport, err := virtio.NewPCI(device, r.mem, host, nil)
	return &attached{disk: d, device: device, transport: transport}, err
}

// close frees everything, the images' locks above all.
func (r *stateHost) close() {
	if r.h != nil {
		if err := errors.Join(r.h.close(), r.m.Close()); err != nil {
			r.Error(err)
		}
	}
	r.h = nil
}

func (r *stateHost) save() []byte {
	r.Helper()
	if err := r.h.pause(r.Context(), byUser); err != nil {
		r.Fatal(err)
	}
	s, err := r.h.saveDevices()
	if err != nil {
		r.Fatal(err)
	}
	return plain.Marshal(s)
}

func (r *stateHost) load(b []byte) error {
	var s devicesState
	if err := plain.Unmarshal(b, &s); err != nil {
		return err
	}
	return r.h.loadDevices(s, r.m.disks)
}

// moved carries the devices to another host with the same disks.
func (r *stateHost) moved(disks []Disk, drivers ...*virtiotest.Driver) *stateHost {
	r.Helper()
	state := r.save()
	r.close()
	n := newStateHost(r.TB, r.mem, disks)
	if err := n.load(state); err != nil {
		r.Fatal(err)
	}
	if again := n.save(); !bytes.Equal(again, state) {
		r.Errorf("saved %x\nloaded and saved again %x", state, again)
	}
	n.h.resumedDevices()
	n.h.resume(byUser)
	for i, d := range drivers {
		if i == 0 {
			d.Move(n.hosts[0], n.h.disks[0].transport)
		} else {
			d.Move(n.hosts[1], n.h.slots[0].device.transport)
		}
	}
	return n
}

// slotControl writes to a port's slot control.
func (r *stateHost) slotControl(i int, v uint16) {
	r.h.slots[i].port.WriteConfig(portSlotControl, binary.LittleEndian.AppendUint16(nil, v))
}

// write makes a request for one sector on a disk, and doesn't wait for it.
func write(d *virtiotest.Driver, sector uint64, v byte) (head uint16, status uint64) {
	d.T.Helper()
	header := make([]byte, 16)
	header[0] = 1 // VIRTIO_BLK_T_OUT
	binary.LittleEndian.PutUint64(header[8:], sector)
	status = d.Mem.Put([]byte{0xff})
	head = d.Queues[0].Add(
		virtiotest.Buf{Addr: d.Mem.Put(header), Len: 16},
		virtiotest.Buf{Addr: d.Mem.Put(bytes.Repeat([]byte{v}, 512)), Len: 512},
		virtiotest.Buf{Addr: status, Len: 1, Write: true})
	d.Queues[0].KickIfWanted()
	return head, status
}

func written(d *virtiotest.Driver, head uint16, status uint64) {
	d.T.Helper()
	if got, _ := d.Queues[0].Wait(); got != head || d.Mem.RAM(status, 1)[0] != 0 {
		d.T.Fatalf("used %d, status %d; want %d", got, d.Mem.RAM(status, 1)[0], head)
	}
}

// Two disks with drivers, one of them hot-plugged, and requests waiting.
func TestDeviceStates(t *testing.T) {
	disks := diskImages(t, 2)
	r := newStateHost(t, virtiotest.NewMemory(t), disks)
	r.h.slots[0].insert(r.m.disks[1])
	r.slotControl(0, powerOn)
	a := virtiotest.Probe(t, r.mem, r.hosts[0], r.h.disks[0].transport)
	b := virtiotest.Probe(t, r.mem, r.hosts[1], r.h.slots[0].device.transport)
	a.Start(virtiotest.Setup{})
	b.Start(virtiotest.Setup{})
	r.h.ports.Write(portCMOS, []byte{0x40})
	r.h.ports.Write(portCMOS+1, []byte{0x99})
	r.h.ports.Write(portSerial+7, []byte{0x55})
	r.h.ports.Write(portPCI, word(1<<31|31<<11))
	for round := range byte(3) {
		if err := r.h.pause(t.Context(), byUser); err != nil {
			t.Fatal(err)
		}
		ha, sa := write(a, 1, 'a'+round)
		hb, sb := write(b, 1, 'A'+round)
		r = r.moved(disks, a, b)
		written(a, ha, sa)
		written(b, hb, sb)
		ha, sa = write(a, 2, 'a'+round)
		written(a, ha, sa)
		for i, want := range []byte{'a' + round, 'A' + round} {
			img, err := os.ReadFile(disks[i].Path)
			if err != nil || img[512] != want {
				t.Errorf("disk %d has %q, want %q (%v)", i, img[512], want, err)
			}
		}
		var p [4]byte
		if r.h.ports.Read(portCMOS+1, p[:1]); p[0] != 0x99 {
			t.Errorf("CMOS %#x", p[0])
		}
		if r.h.ports.Read(portSerial+7, p[:1]); p[0] != 0x55 {
			t.Errorf("serial port %#x", p[0])
		}
		if r.h.ports.Read(portPCI+4, p[:]); !bytes.Equal(p[:], word(0x000c1b36)) {
			t.Errorf("the selected function reads % x", p)
		}
	}
	// The slot works as before: off, and on again with a new device.
	s := r.h.slots[0]
	old := s.device
	r.slotControl(0, powerIsOff)
	r.slotControl(0, powerOn)
	for {
		held, changed := s.holds(r.m.disks[1])
		if f := s.function(); f != nil && f != pci.Function(old.card) {
			break
		}
		if !held {
			t.Fatal("the disk is gone")
		}
		<-changed
	}
	r.moved(disks, a)
}

// What was interrupted for at the source may not have arrived; and a disk that has
// another size by now says so.
func TestDeviceStatesInterruptOnce(t *testing.T) {
	disks := diskImages(t, 1)
	r := newStateHost(t, virtiotest.NewMemory(t), disks)
	a := virtiotest.Probe(t, r.mem, r.hosts[0], r.h.disks[0].transport)
	a.Start(virtiotest.Setup{})
	state := r.save()
	r.close()
	r = newStateHost(t, r.mem, disks)
	if err := r.m.disks[0].image.Resize(2 << 20); err != nil {
		t.Fatal(err)
	}
	if err := r.load(state); err != nil {
		t.Fatal(err)
	}
	a.Move(r.hosts[0], r.h.disks[0].transport)
	q := a.Queues[0]
	if n := q.Interrupt().Take(); n != 0 {
		t.Errorf("%d interrupts by the load", n)
	}
	r.h.resumedDevices()
	if n := q.Interrupt().Take(); n != 1 {
		t.Errorf("%d interrupts, want 1", n)
	}
	if n := binary.LittleEndian.Uint64(a.DeviceConfig(0, 8)); n != 2<<20/512 {
		t.Errorf("capacity %d sectors", n)
	}
}

// A slot is moved as it is: empty, dark, or with a device without a driver.
func TestDeviceStatesOfSlots(t *testing.T) {
	disks := diskImages(t, 2)
	r := newStateHost(t, virtiotest.NewMemory(t), disks[:1])
	r = r.moved(disks[:1])
	if held, _ := r.h.slots[0].holds(nil); !held {
		t.Error("an empty slot isn't empty")
	}
	r.close()

	r = newStateHost(t, virtiotest.NewMemory(t), disks)
	r.h.slots[0].insert(r.m.disks[1])
	r = r.moved(disks)
	if held, _ := r.h.slots[0].holds(r.m.disks[1]); !held || r.h.slots[0].function() != nil {
		t.Error("the disk isn't there, or has a device without power")
	}
	r.slotControl(0, powerOn)
	if r.h.slots[0].function() == nil {
		t.Fatal("power brings no device")
	}
	r = r.moved(disks)
	if r.h.slots[0].function() == nil {
		t.Error("the device is gone")
	}
}

func TestSaveDevicesRefuses(t *testing.T) {
	disks := diskImages(t, 2)
	r := newStateHost(t, virtiotest.NewMemory(t), disks)
	s, b := r.h.slots[0], r.m.disks[1]
	s.insert(b)
	r.slotControl(0, powerOn)
	refused := func(want string) {
		t.Helper()
		if _, err := r.h.saveDevices(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	s.release(b, true)
	refused("disk b is being removed")
	s.release(b, false)
	r.save()
	b.unwanted = true
	refused("disk b is being removed")
	b.unwanted = false

	gone, leave := s.gone, make(chan struct{})
	s.gone = func(a *attached) { <-leave; gone(a) }
	r.slotControl(0, powerIsOff)
	refused("disk b is being taken apart")
	close(leave)
}

func TestLoadDevicesRefuses(t *testing.T) {
	disks := diskImages(t, 2)
	mem := virtiotest.NewMemory(t)
	r := newStateHost(t, mem, disks)
	r.h.slots[0].insert(r.m.disks[1])
	r.slotControl(0, powerOn)
	virtiotest.Probe(t, r.mem, r.hosts[0], r.h.disks[0].transport).Start(virtiotest.Setup{})
	state := r.save()
	r.close()
	for name, c := range map[string]struct {
		change func(*devicesState)
		want   string
	}{
		"disks":       {func(s *devicesState) { s.Disks = nil }, "0 disks given at start"},
		"slots":       {func(s *devicesState) { s.Slots = s.Slots[:1] }, "1 hotplug slots"},
		"serial":      {func(s *devicesState) { s.Serial.IER = 0xff }, "serial port"},
		"power":       {func(s *devicesState) { s.Power.Control = 0 }, "power management"},
		"CMOS":        {func(s *devicesState) { s.CMOS.RAM = nil }, "CMOS"},
		"address":     {func(s *devicesState) { s.PCIAddress = 1 }, "PCI address"},
		"bridge":      {func(s *devicesState) { s.HostBridge.Data = nil }, "host bridge"},
		"other disk":  {func(s *devicesState) { s.Disks[0].ID = "x" }, `disk "x" where this machine has a`},
		"disk":        {func(s *devicesState) { s.Disks[0].Device.Queues = nil }, "disk a: 0 queues"},
		"disk state":  {func(s *devicesState) { s.Disks[0].Device.Device = nil }, "disk a"},
		"port":        {func(s *devicesState) { s.Slots[1].Port.Data[0]++ }, "hotplug slot 2"},
		"slot's disk": {func(s *devicesState) { s.Slots[0].Disk = "c" }, `slot 1: the state has disk "c"`},
		"no disk":     {func(s *devicesState) { s.Slots[0].Disk = "" }, `slot 1: the state has disk ""`},
		"a disk more": {func(s *devicesState) { s.Slots[1].Disk = "c" }, "this machine has none"},
		"no power":    {func(s *devicesState) { s.Slots[0].Port.Data[portSlotControl+1] |= 4 }, "without power"},
		"ghost":       {func(s *devicesState) { s.Slots[1].Device = s.Slots[0].Device }, "without a disk"},
		"card":        {func(s *devicesState) { s.Slots[0].Device.Status = 4 }, "slot 1: disk b: device status"},
	} {
		t.Run(name, func(t *testing.T) {
			var s devicesState
			if err := plain.Unmarshal(state, &s); err != nil {
				t.Fatal(err)
			}
			c.change(&s)
			n := newStateHost(t, mem, disks)
			if err := n.h.loadDevices(s, n.m.disks); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	n := newStateHost(t, mem, disks)
	if err := n.load(state); err != nil {
		t.Error(err)
	}
	if err := n.load(state); err == nil {
		t.Error("loaded twice")
	}
}
