package virtio

// Memory is the guest's RAM as a device sees it.
type Memory interface {
	// Bytes returns the host's view of n bytes at guest physical address gpa, or
	// nil unless they lie wholly inside one range of RAM. The view is not a copy:
	// the guest changes it at any time. Host and guest addresses are equal modulo
	// the page size, which the rings' atomic accesses rely on.
	Bytes(gpa uint64, n uint64) []byte

	// Wrote says that the device has written n bytes at p, a host address of RAM: a live
	// migration has to carry them, and KVM's dirty log has only what the guest writes. It is
	// called after the bytes are there, when a request completes and never when it is
	// submitted, and before the driver may see them (Queue.Publish). Any goroutine; it is
	// cheap, takes no lock and allocates nothing.
	Wrote(p *byte, n uint64)
}

// Device is the device-type half of a virtio device.
type Device interface {
	// ID returns the virtio device id (section 5; 2 is a block device).
	ID() uint16

	// Class returns the PCI class code, 24 bits.
	Class() uint32

	// Features returns the device-type feature bits it offers. The transport adds
	// those it implements itself: VERSION_1, INDIRECT_DESC, EVENT_IDX.
	Features() uint64

	// ReadConfig and WriteConfig access the device-specific configuration: vCPU
	// goroutines, one at a time, at any device status. Beyond its end reads are
	// zeroes and writes are ignored. They must not wait for the engine nor call
	// the transport.
	ReadConfig(off int, p []byte)
	WriteConfig(off int, p []byte)

	// QueueSizes returns the most entries of each virtqueue, powers of two.
	QueueSizes() []uint16

	// Activate starts the device at DRIVER_OK with the negotiated features. queues
	// has one entry per virtqueue, nil where the driver enabled none. Until Reset is done
	// they belong to the device. An error ends in DEVICE_NEEDS_RESET.
	Activate(features uint64, queues []*Queue) error

	// Reset stops the device, active or not. done is called once, from any
	// goroutine and possibly before Reset returns, when no request is in flight
	// and nothing touches the queues any more.
	Reset(done func())
}

// Negotiator is a Device that wants to know the features before it is activated.
type Negotiator interface {
	// Negotiated is told the driver's features when it sets FEATURES_OK. They are a
	// subset of what was offered. An error refuses them (2.2.2). The same rules as
	// for ReadConfig.
	Negotiated(features uint64) error
}

// Feature bits of the transport and the rings (section 6).
const (
	FeatureIndirectDesc uint64 = 1 << 28
	FeatureEventIdx     uint64 = 1 << 29
	FeatureVersion1     uint64 = 1 << 32
)

// transportFeatures is what the transport offers by itself. Not among them, on
// purpose: IN_ORDER (on a shared engine it means head-of-line blocking),
// RING_RESET (needs a stop per queue), NOTIFICATION_DATA, RING_PACKED.
const transportFeatures = FeatureVersion1 | FeatureIndirectDesc | FeatureEventIdx

// Device status bits (2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// MaxQueueSize is the most entries of a split virtqueue (2.7).
const MaxQueueSize = 32768
