package machine

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/virtio/pci"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// Registers of a slot's port, as offsets in configuration space (virtio/pci has its
// own tests of them), and values a guest writes to slot control.
const (
	portSlotControl = 0x68
	portSlotStatus  = 0x6a

	powerOn       = 1 << 8 // and indicator on
	powerOnBlink  = 2 << 8 // the guest works on the slot
	powerIsOff    = 7 << 8 // and indicator off
	buttonEnable  = 1 << 0 // presses are events
	statusPressed = 1 << 0 // the button was
	statusPresent = 1 << 6 // the slot is occupied
)

// slotRig is a slot with a guest and disks of straw.
type slotRig struct {
	*testing.T
	*slot
	made    int                // devices so far; slot.mu guards it
	leaves  chan chan struct{} // gets a channel for each device that is taken apart; closing it ends that
	presses int
}

func newSlotRig(t *testing.T) *slotRig {
	r := &slotRig{T: t, slot: newSlot(), leaves: make(chan chan struct{}, 100)}
	r.make = func(d *disk) (*attached, error) {
		r.made++
		return &attached{disk: d, card: &card{f: pci.Bare{Config: pci.NewConfig(pci.ID{Vendor: 1, Device: uint16(r.made)})}}}, nil
	}
	r.gone = func(a *attached) {
		a.card.pull()
		end := make(chan struct{})
		r.leaves <- end
		<-end
	}
	r.port = pci.NewRootPort(1, virtiotest.NewHost(t), r.follow, nil)
	return r
}

func (r *slotRig) write(off int, v uint16) {
	r.port.WriteConfig(off, binary.LittleEndian.AppendUint16(nil, v))
}

func (r *slotRig) read(off int) uint16 {
	var p [2]byte
	r.port.ReadConfig(off, p[:])
	return binary.LittleEndian.Uint16(p[:])
}

// wasPressed counts presses of the button so far, as a guest that clears each.
func (r *slotRig) wasPressed() int {
	if r.read(portSlotStatus)&statusPressed != 0 {
		r.write(portSlotStatus, statusPressed)
		r.presses++
	}
	return r.presses
}

// answers returns the number of the device that answers, 0 if none does.
func (r *slotRig) answers() int {
	f := r.function()
	if f == nil {
		return 0
	}
	var p [2]byte
	f.ReadConfig(2, p[:])
	return int(binary.LittleEndian.Uint16(p[:]))
}

// leave returns when a device is being taken apart, and what ends that.
func (r *slotRig) leave() chan struct{} {
	r.Helper()
	select {
	case end := <-r.leaves:
		return end
	case <-time.After(hung):
		r.Fatal("no device is taken apart")
		return nil
	}
}

// until waits for a transition after which ok holds.
func (r *slotRig) until(what string, ok func() bool) {
	r.Helper()
	timeout := time.After(hung)
	for {
		_, changed := r.holds(nil)
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.Fatal("waiting for ", what)
		}
	}
}

func (r *slotRig) empty() bool {
	r.slot.mu.Lock()
	defer r.slot.mu.Unlock()
	return r.disk == nil
}

func (r *slotRig) want(what string, device int, present bool) {
	r.Helper()
	if got := r.answers(); got != device {
		r.Errorf("%s: device %d answers, want %d", what, got, device)
	}
	if got := r.read(portSlotStatus)&statusPresent != 0; got != present {
		r.Errorf("%s: presence %v", what, got)
	}
}

func TestSlotInsertAndRemove(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.insert(d)
	r.want("inserted", 0, true)
	if r.wasPressed() != 1 {
		t.Error("the guest is not told")
	}
	r.write(portSlotControl, powerOnBlink)
	r.want("powered on", 1, true)
	r.write(portSlotControl, powerOn)

	r.release(d, true)
	if r.wasPressed() != 2 {
		t.Error("the guest is not asked")
	}
	r.write(portSlotControl, powerOnBlink)
	r.release(d, true) // another press would take it back
	if r.wasPressed() != 2 {
		t.Error("the button was pressed while the guest works on the slot")
	}
	r.want("asked", 1, true)
	r.write(portSlotControl, powerIsOff)
	r.want("powered off, in flight", 0, true)
	if r.empty() {
		t.Error("the slot is empty while requests are in flight")
	}
	close(r.leave())
	r.until("the slot to be empty", r.empty)
	r.want("removed", 0, false)
}

// A guest that doesn't let go is asked again, and keeps the disk if it's wanted again.
func TestSlotGuestRefuses(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.insert(d)
	r.write(portSlotControl, powerOn)
	r.wasPressed()
	for i := range 3 {
		if i == 0 {
			r.release(d, true)
		}
		if n := r.wasPressed(); n != 2+i {
			t.Fatalf("%d presses, want %d", n, 2+i)
		}
		r.write(portSlotControl, powerOnBlink)
		r.write(portSlotControl, powerOn)
	}
	r.wasPressed()
	r.release(d, false)
	n := r.wasPressed()
	r.write(portSlotControl, powerOnBlink)
	r.write(portSlotControl, powerOn)
	if r.wasPressed() != n {
		t.Error("pressed although the disk is wanted again")
	}
	r.want("still there", 1, true)
	r.write(portSlotControl, powerIsOff) // by itself
	close(r.leave())
	r.write(portSlotControl, powerOn)
	r.until("the next device", func() bool { return r.answers() != 0 })
	r.want("back", 2, true)
}

// A guest that boots forgets what happened before it listens.
func TestSlotGuestListensLate(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	if err := r.preset(d); err != nil {
		t.Fatal(err)
	}
	r.release(d, true)
	if r.wasPressed() != 1 {
		t.Error("the guest is not asked")
	}
	r.write(portSlotControl, powerOn|buttonEnable)
	if r.wasPressed() != 2 {
		t.Error("a guest that begins to listen is not asked")
	}
	r.write(portSlotControl, powerOn|buttonEnable|1<<1)
	if r.wasPressed() != 2 {
		t.Error("a guest that listens is asked twice")
	}
}

// What has no power has no requests: it goes without asking.
func TestSlotRemoveWhileOff(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.insert(d)
	r.wasPressed()
	r.release(d, true)
	r.want("removed", 0, false)
	if r.wasPressed() != 1 || !r.empty() {
		t.Error("a slot that is off was asked for its disk")
	}
	r.insert(d) // and the slot takes another
	r.write(portSlotControl, powerOn)
	r.want("another", 1, true)
}

// The guest turns the slot off and on while the old device has requests in flight:
// the new one comes when the old one is done, and never if the disk is to go.
func TestSlotPowerCycleWithRequestsInFlight(t *testing.T) {
	for _, unwanted := range []bool{false, true} {
		r, d := newSlotRig(t), &disk{}
		r.insert(d)
		r.write(portSlotControl, powerOn)
		r.write(portSlotControl, powerIsOff)
		end := r.leave()
		for range 5 {
			r.write(portSlotControl, powerOn)
			r.write(portSlotControl, powerIsOff)
		}
		r.write(portSlotControl, powerOn)
		r.want("old device in flight", 0, true)
		r.release(d, unwanted)
		close(end)
		r.until("the end of it", func() bool { return r.answers() == 2 || r.empty() })
		if r.empty() != unwanted {
			t.Errorf("unwanted %v: empty %v", unwanted, r.empty())
		}
	}
}

// A card that is pulled answers no access, not even one that found it before.
func TestSlotPulledCard(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.insert(d)
	r.write(portSlotControl, powerOn)
	f := r.function()
	r.write(portSlotControl, powerIsOff)
	close(r.leave()) // it is pulled by now
	p := make([]byte, 4)
	if f.ReadConfig(0, p); binary.LittleEndian.Uint32(p) != 0xffffffff {
		t.Errorf("a pulled card reads % x", p)
	}
	if f.ReadBAR(0, 0, p); binary.LittleEndian.Uint32(p) != 0xffffffff {
		t.Errorf("its BAR reads % x", p)
	}
	f.WriteBAR(0, 0, p)
	f.WriteConfig(0x3c, []byte{1})
	if f.(*card).f.ReadConfig(0x3c, p[:1]); p[0] != 0 {
		t.Error("a write reached a pulled card")
	}
}

// Closing waits for requests in flight, and then nothing happens any more.
func TestSlotClose(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.insert(d)
	r.write(portSlotControl, powerOn)
	closed := make(chan error)
	go func() { closed <- r.close() }()
	end := r.leave()
	r.release(d, true)
	r.write(portSlotControl, powerIsOff)
	r.write(portSlotControl, powerOn)
	select {
	case <-closed:
		t.Error("closed with requests in flight")
	default:
	}
	close(end)
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(hung):
		t.Fatal("close hangs")
	}
	if held, _ := r.holds(d); !held || r.answers() != 0 {
		t.Errorf("after close: held %v, device %d", held, r.answers())
	}
}

// A guest that writes anything to the port, beside a host that adds and removes.
func TestSlotTakesAnything(t *testing.T) {
	r, d := newSlotRig(t), &disk{}
	r.gone = func(a *attached) { a.card.pull() }
	stop := make(chan struct{})
	var guest sync.WaitGroup
	for seed := range uint64(2) {
		guest.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				var p [4]byte
				binary.LittleEndian.PutUint32(p[:], rnd.Uint32())
				width := 1 << rnd.IntN(3)
				r.port.WriteConfig(rnd.IntN(256/width)*width, p[:width])
				if f := r.function(); f != nil {
					f.WriteConfig(rnd.IntN(256/width)*width, p[:width])
					f.ReadConfig(rnd.IntN(256/width)*width, p[:width])
				}
			}
		})
	}
	for range 2000 {
		r.insert(d)
		r.release(d, true)
		r.until("the slot to be empty", r.empty)
	}
	close(stop)
	guest.Wait()
	if err := r.close(); err != nil {
		t.Error(err)
	}
	r.want("in the end", 0, false)
}
