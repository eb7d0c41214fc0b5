// Package virtio is what every virtio device has in common: split virtqueues and
// the modern virtio-pci transport (VIRTIO 1.2; section numbers refer to it). It
// knows no device type, no files and no KVM.
//
//	guest memory                     engine's thread               vCPU threads
//	┌────────────┐  Next   ┌───────┐                      ┌─────┐  ReadBAR, WriteBAR
//	│ descriptors│────────▶│ Chain │──▶ Device (blk)      │ PCI │◀─────────────────── bus
//	│ avail ring │         └───────┘                      └──┬──┘
//	│ used ring  │◀── AddUsed, Publish ── Queue ── signal ──▶│ MSIX ──▶ irqfd
//	└────────────┘                          ▲                │
//	                                        └── kick eventfd ┘◀── ioeventfd
//
// A [Queue] is the device side of one virtqueue. Between Device.Activate and the
// end of Device.Reset one goroutine owns it (the engine's thread) and nothing in
// it takes a lock or allocates. [PCI] is the transport: registers, device status,
// interrupts, kicks. Its methods run on vCPU goroutines, several at once.
//
// The driver is not trusted. Everything it writes is copied once and then checked;
// what it can break is its own device: [Queue.Fail] stops the queue and announces
// DEVICE_NEEDS_RESET, and the other devices go on. docs/spec.md lists each rule
// with the test that checks it.
package virtio
