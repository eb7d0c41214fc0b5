package machine

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/plain"
)

// A whole machine is moved, several times: each has the state that it was given, and its guest goes on.
func TestMachineMoves(t *testing.T) {
	disks := diskImages(t, 3)
	disks[0].Limits = aio.Limits{IOPS: aio.Rate{PerSecond: 1000}}
	disks[1].Limits, disks[1].Group = disks[0].Limits, "group"
	r := prepare(t, Config{CPUs: 2, Disks: disks[:2], HotplugSlots: 2}, watchClocks)
	r.add(disks[2])
	r.run()
	r.moves(counterAddr, 0)
	for i, a := range r.hw.devices() {
		bringUp(t, r.hw, a, uint64(0x400000+i<<16))
	}
	r.hw.ports.Write(portCMOS, []byte{0x40})
	r.hw.ports.Write(portCMOS+1, []byte{0x99})
	r.hw.ports.Write(portSerial+7, []byte{0x55})
	r.hw.ports.Write(portPCI, word(1<<31|31<<11))
	r.hw.resumedDevices() // as they all are once they have moved
	for range 2 {
		count := r.number(counterAddr)
		n, in, sent, again := r.away(disks)
		sent.KVM.stopClocks()
		again.KVM.stopClocks()
		same(t, "moving", sent, again)
		in.Go()
		r.ends(Migrated, "")
		n.moves(counterAddr, count)
		r = n
	}
}

// A serial port whose transmitter was busy, because nobody reads the console, is free by the move, and the guest hears of it.
func TestBusySerialMoves(t *testing.T) {
	r := prepare(t, Config{}, interruptItself)
	reader, writer := io.Pipe()
	t.Cleanup(func() { reader.Close() })
	r.Machine.console.w = writer
	r.run()
	r.moves(counterAddr, 0)
	put := func(reg uint64, v byte) { r.hw.ports.Write(portSerial+reg, []byte{v}) }
	get := func(reg uint64) byte {
		var p [1]byte
		r.hw.ports.Read(portSerial+reg, p[:])
		return p[0]
	}
	const mcr, outputs, ier, transmit, iir, lsr, empty = 4, 0xb, 1, 2, 2, 5, 0x20
	put(mcr, outputs)
	put(ier, transmit)
	for get(lsr)&empty != 0 {
		put(0, 'x')
	}
	get(iir)
	chip, err := r.hw.vm.GetIRQChip(kvm.IRQChipIOAPIC)
	if err != nil {
		t.Fatal(err)
	}
	const redirect, vector = 24, 0x44                                           // struct kvm_ioapic_state
	copy(chip.Data[redirect+8*gsiSerial:], []byte{vector, 0, 0, 0, 0, 0, 0, 0}) // edge, not masked, to vCPU 0
	if err := r.hw.vm.SetIRQChip(chip); err != nil {
		t.Fatal(err)
	}
	requested := func(r *rig) bool {
		lapic, err := r.hw.gate.cpus[0].kvm.GetLAPIC()
		if err != nil {
			t.Fatal(err)
		}
		return lapic.Requested(vector)
	}
	r.pause()
	before := requested(r)
	r.resume()
	n, in, _, _ := r.away(nil)
	if after := requested(n); before || !after {
		t.Errorf("the port's interrupt is requested: %v here, %v there; want only there", before, after)
	}
	in.Go()
	r.wait()
}

// away takes the guest to another machine, where it stands yet, step by step as package migration does. It returns
// what was saved here, and what the other saves.
func (r *rig) away(disks []Disk) (n *rig, in *Incoming, sent, again machineState) {
	r.Helper()
	check := func(err error) {
		r.Helper()
		if err != nil {
			r.Fatal(err)
		}
	}
	out, err := r.BeginMigration()
	check(err)
	defer out.End()
	description, err := out.Describe()
	check(err)
	n = &rig{TB: r.TB, console: newConsole(), done: make(chan struct{})}
	in, err = NewIncoming(Config{Console: n.console, Log: slog.New(slog.NewTextHandler(r.Output(), nil))}, description,
		func(id, _ string) (string, error) { return disks[id[0]-'a'].Path, nil })
	check(err)
	n.Machine = in.Machine
	go func() {
		defer close(n.done)
		n.end, n.err = in.Wait()
	}()
	r.Cleanup(func() {
		n.Stop()
		n.wait()
		if err := in.Close(); err != nil {
			r.Error(err)
		}
	})
	for _, d := range out.Disks() {
		check(d.Image.OfferReservation())
	}
	check(in.Reserve())
	for _, f := range out.BootFiles() {
		w, err := in.File(f.Name, f.Size)
		check(err)
		_, err = io.Copy(w, f.Content)
		check(err)
	}
	check(in.Prepare(out.SaveAhead()))
	for _, d := range out.Disks() {
		d.Device.SetDrainWindow(0)
		check(d.Device.Idle(r.Context()))
		check(d.Device.Sync(r.Context()))
	}
	const ahead = -90 * time.Second // of this host's clock, it is said
	arrive := func() {
		r.Helper()
		for _, d := range out.Disks() {
			check(d.Image.ReleaseOwner())
		}
		check(in.TakeOver())
		out.Stop()
		state, err := out.Save()
		check(err)
		check(plain.Unmarshal(state, &sent))
		for i, region := range out.Memory() {
			copy(in.Memory()[i].Bytes, region.Bytes)
		}
		check(in.Load(state, ahead))
	}
	arrive() // too late, so that the guest goes on here
	out.Resume()
	check(in.GiveBack())
	in.Unload()
	for _, d := range out.Disks() {
		check(d.Image.ReclaimOwner())
	}
	if number := r.number(counterAddr); number > 0 {
		r.moves(counterAddr, number)
	}
	arrive()
	saved, err := in.save(in.hw)
	check(err)
	check(plain.Unmarshal(plain.Marshal(saved), &again))
	again.Devices.CMOS.Offset += int64(ahead) // by which the guest's clock shows the same time
	out.Leave()
	return n, in, sent, again
}
