package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
)

const daemon = "qemu-storage-daemon"

func installed() bool {
	_, err := exec.LookPath(daemon)
	return err == nil
}

// polledDaemon has QEMU's storage daemon carry out the requests, with one I/O thread for all disks.
func polledDaemon(b *testing.B, kind aio.EngineKind, s setup, images []string) result {
	engine := map[aio.EngineKind]string{aio.EngineUring: "io_uring", aio.EngineNative: "native", aio.EngineThreads: "threads"}[kind]
	dir := b.TempDir()
	argv := []string{"--object", "iothread,id=io"}
	socket := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	for i, path := range images {
		argv = append(argv,
			"--blockdev", fmt.Sprintf("driver=raw,node-name=d%d,cache.direct=on,file.driver=file,file.filename=%s,file.aio=%s,file.cache.direct=on", i, path, engine),
			"--export", fmt.Sprintf("type=vhost-user-blk,id=e%d,node-name=d%d,addr.type=unix,addr.path=%s,writable=on,iothread=io", i, i, socket(i)))
	}
	cmd := exec.Command(daemon, argv...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	must(b, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	g := newPollingGuest(b, s)
	for i := range images {
		conn, err := dial(socket(i))
		if err != nil {
			b.Fatalf("%s: %v: %s", daemon, err, said.String())
		}
		defer conn.Close()
		q, err := conn.start(g)
		if err != nil {
			b.Fatalf("%s: disk %d: %v: %s", daemon, i, err, said.String())
		}
		g.add(q, s.Depth)
	}
	return g.measure(b)
}

// vhostUser is a disk of another process, which has its rings in memory that it maps.
// Source: the vhost-user protocol (docs/interop/vhost-user.rst of QEMU).
type vhostUser struct {
	*net.UnixConn
	kick, call int
}

func dial(path string) (*vhostUser, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			return &vhostUser{UnixConn: conn, kick: -1, call: -1}, conn.SetDeadline(deadline)
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
}

func (v *vhostUser) Close() error {
	return errors.Join(v.UnixConn.Close(), unix.Close(v.kick), unix.Close(v.call))
}

// Messages, and the feature that makes a ring wait until it is enabled.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	setVringKick        = 12
	setVringCall        = 13
	setProtocolFeatures = 16
	setVringEnable      = 18

	protocolFeatures = 1 << 30
)

// start gives the disk the guest's memory and one queue in it.
func (v *vhostUser) start(g *pollingGuest) (q virtqueue, err error) {
	for _, fd := range []*int{&v.kick, &v.call} {
		if *fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return q, err
		}
	}
	q = virtqueue{desc: g.mem.Alloc(16*queueSize, 16), avail: g.mem.Alloc(8+2*queueSize, 8), used: g.mem.Alloc(12+8*queueSize, 8), kick: func() { signal(v.kick) }}
	const features = virtio.FeatureVersion1 | virtio.FeatureEventIdx | protocolFeatures
	offered, err := v.ask(getFeatures)
	if err != nil {
		return q, err
	}
	if offered&features != features {
		return q, fmt.Errorf("offers the features %#x", offered)
	}
	// The ring's addresses are the front end's own; it says that its memory is at 0, as the guest does.
	for _, m := range []struct {
		request uint32
		fd      int
		payload []uint64
	}{
		{setProtocolFeatures, -1, []uint64{0}},
		{setOwner, -1, nil},
		{setFeatures, -1, []uint64{features}},
		{setMemTable, g.shared, []uint64{1, 0, guestRAM, 0, 0}}, // regions; guest address, size, own address, offset
		{setVringNum, -1, []uint64{queueSize << 32}},            // index, number
		{setVringBase, -1, []uint64{0}},
		{setVringAddr, -1, []uint64{0, q.desc, q.used, q.avail, 0}}, // index and flags; the log's is the last
		{setVringCall, v.call, []uint64{0}},
		{setVringKick, v.kick, []uint64{0}},
		{setVringEnable, -1, []uint64{1 << 32}},
	} {
		if err := v.send(m.request, m.fd, m.payload...); err != nil {
			return q, err
		}
	}
	_, err = v.ask(getFeatures) // has seen the rest
	return q, err
}

const version = 1 // of the protocol, in a message's flags

func (v *vhostUser) send(request uint32, fd int, payload ...uint64) error {
	p := binary.LittleEndian.AppendUint32(nil, request)
	p = binary.LittleEndian.AppendUint32(p, version)
	p = binary.LittleEndian.AppendUint32(p, uint32(8*len(payload)))
	for _, x := range payload {
		p = binary.LittleEndian.AppendUint64(p, x)
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	_, _, err := v.WriteMsgUnix(p, rights, nil)
	return err
}

// ask sends a request whose answer is a number.
func (v *vhostUser) ask(request uint32) (uint64, error) {
	if err := v.send(request, -1); err != nil {
		return 0, err
	}
	var answer [12 + 8]byte
	if _, err := io.ReadFull(v, answer[:]); err != nil {
		return 0, err
	}
	if got := binary.LittleEndian.Uint32(answer[:]); got != request {
		return 0, fmt.Errorf("answers %d to %d", got, request)
	}
	return binary.LittleEndian.Uint64(answer[12:]), nil
}

// signal adds one to an eventfd.
func signal(fd int) {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(fd, one[:]) // full only if nobody reads it, and then it is rung anyway
}
