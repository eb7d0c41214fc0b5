package virtio

import (
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/virtio/guestlog"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// kicks are the queues' eventfds and how a guest's store reaches them (4.1.4.4).
//
// The eventfds live as long as the transport, whatever the device status: a kick
// nobody waits for leaves a count in one, no more. From the first DRIVER_OK on the
// machine signals them directly (ioeventfd), wherever the BAR is mapped; before
// that, and if the machine can't, the store arrives as an ordinary BAR write.
// (Registering them at DRIVER_OK, not when the BAR is mapped, keeps the firmware's and
// the kernel's sizing of the BAR free of ioctls.)
type kicks struct {
	host pci.Host
	log  *guestlog.Logger
	fds  []int

	mu     sync.Mutex
	base   uint64 // address of the notify area, 0: not mapped
	wanted bool
	armed  []bool // queues whose ioeventfd is registered at base
}

func newKicks(n int, host pci.Host, log *guestlog.Logger) (*kicks, error) {
	k := &kicks{host: host, log: log, armed: make([]bool, n)}
	for i := range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("eventfd of virtqueue %d: %w", i, err)
		}
		k.fds = append(k.fds, fd)
	}
	return k, nil
}

// kick signals queue i, as a store to its notify address does.
func (k *kicks) kick(i int) {
	one := [8]byte{1}            // little endian
	unix.Write(k.fds[i], one[:]) //nolint:errcheck // EAGAIN: the counter is full, so it is signalled
}

// want registers the ioeventfds, now if the BAR is mapped and wherever it goes.
func (k *kicks) want() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = true
	k.arm()
}

// moved follows the BAR; base is the notify area's new address, or 0.
func (k *kicks) moved(base uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disarm()
	k.base = base
	if k.wanted {
		k.arm()
	}
}

func (k *kicks) arm() {
	if k.base == 0 {
		return
	}
	for i, fd := range k.fds {
		if k.armed[i] {
			continue
		}
		if err := k.host.AddIOEventFD(k.base+uint64(i)*notifyMultiplier, fd); err != nil {
			k.log.Log(slog.LevelWarn, "no ioeventfd for a virtqueue, its kicks take the slow path", slog.Int("queue", i), slog.Any("err", err))
			continue
		}
		k.armed[i] = true
	}
}

func (k *kicks) disarm() {
	for i, fd := range k.fds {
		if !k.armed[i] {
			continue
		}
		k.armed[i] = false
		if err := k.host.RemoveIOEventFD(k.base+uint64(i)*notifyMultiplier, fd); err != nil {
			k.log.Log(slog.LevelWarn, "ioeventfd not removed", slog.Int("queue", i), slog.Any("err", err))
		}
	}
}

func (k *kicks) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disarm()
	k.base = 0
	for _, fd := range k.fds {
		unix.Close(fd) //nolint:errcheck // an eventfd's close can't fail
	}
	k.fds = nil
}
