package virtio

import "log/slog"

// usedBuffer interrupts the driver for queue i. Engine's thread.
func (t *PCI) usedBuffer(i int) {
	if !t.live.Load() { // 2.1.2
		return
	}
	t.raiseISR(isrQueue)
	t.msix.Signal(uint16(t.queueVectors[i].Load()))
}

// raiseISR sets a bit of the ISR status before the notification goes out. The
// driver looks at it only without MSI-X; the load keeps the usual case free of
// writes to a shared cache line.
func (t *PCI) raiseISR(bit uint32) {
	if t.isr.Load()&bit == 0 {
		t.isr.Or(bit)
	}
}

// configChange is a configuration change notification (2.3, 4.1.5.4).
func (t *PCI) configChange() {
	if !t.live.Load() {
		return
	}
	t.raiseISR(isrConfig)
	t.msix.Signal(uint16(t.configVector.Load()))
}

// ChangeConfig runs change, which alters the device-specific configuration, and
// tells the driver. No driver's read falls into the middle of it unnoticed: the
// next one sees another config_generation (2.5.1). change must not call the
// transport. Any goroutine but one inside a method of the device.
func (t *PCI) ChangeConfig(change func()) {
	t.mu.Lock()
	change()
	t.regs.configChanged = true
	t.mu.Unlock()
	t.configChange()
}

// NeedsReset gives the device up until the driver resets it: it sets
// DEVICE_NEEDS_RESET and announces that (2.1.2). Any goroutine, also the engine's
// thread; it takes no lock and is cheap to repeat.
func (t *PCI) NeedsReset(reason string) {
	if t.needsReset.Swap(true) {
		return
	}
	t.log.Log(slog.LevelWarn, "virtio device stopped, its driver has to reset it", slog.Int("virtio", int(t.dev.ID())), slog.String("reason", reason))
	t.configChange()
}
