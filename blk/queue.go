package blk

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
	"github.com/ebb-vmm/ebb/virtio"
)

// queue is one virtqueue of an active disk, as the engine sees it. Everything in
// it belongs to the engine's thread.
type queue struct {
	dev *Device
	vq  *virtio.Queue

	// pending is what the engine has, by descriptor head. A head in use can't
	// come again: virtio.Queue fails on it (CVE-2026-45782).
	pending []pending
}

var _ aio.Queue = (*queue)(nil)

// pending is what is left to do when the engine is done with a request.
type pending struct {
	status []byte // the status byte in guest memory; nil: the slot is free
	room   uint64 // device-writable bytes before it
}

func newQueue(d *Device, vq *virtio.Queue) *queue {
	return &queue{dev: d, vq: vq, pending: make([]pending, vq.Size())}
}

// KickFD implements aio.Queue.
func (q *queue) KickFD() int { return q.vq.KickFD() }

// Pop implements aio.Queue.
func (q *queue) Pop(r *aio.Request, long bool) aio.Popped {
	c, ok := q.vq.Next()
	if !ok {
		return aio.Empty
	}
	w := c.Writable()
	var status []byte
	if w.Len() > 0 {
		status = w.Byte(w.Len() - 1)
	}
	if status == nil {
		// There is no way to answer, and leaving it unanswered would hang the guest in silence.
		q.vq.PutBack() // a queue that has failed has nothing in flight: it can migrate
		q.vq.Fail(fmt.Sprintf("descriptor %d: no status byte the device can write", c.Head()))
		return aio.Empty
	}
	p := pending{status: status, room: w.Len() - 1}
	a := q.dev.decode(c, p.room, r)
	if !a.issue {
		q.finish(c.Head(), &p, a.status, a.written)
		return aio.Done
	}
	if r.Op.Long() && !long {
		q.vq.PutBack()
		return aio.Stays
	}
	r.Tag = uint32(c.Head())
	q.pending[c.Head()] = p
	return aio.Issue
}

// Complete implements aio.Queue.
func (q *queue) Complete(r *aio.Request, n int64, err unix.Errno) {
	p := &q.pending[r.Tag]
	if p.status == nil {
		panic(fmt.Sprintf("blk: %s: request %d completed, but not in flight", q.dev.id, r.Tag))
	}
	status := byte(statusOK)
	switch {
	case err == unix.EOPNOTSUPP && (r.Op == aio.Discard || r.Op == aio.WriteZeroes):
		status = statusUnsupp
	case err != 0:
		status = statusIOErr
	case q.dev.image.lost.Load() && (r.Op == aio.Flush || r.Op != aio.Read && r.Durable):
		status, err = statusIOErr, unix.EIO
	case (r.Op == aio.Read || r.Op == aio.Write) && n != r.Length:
		status, err = statusIOErr, unix.EIO // the image ends too early
	}
	if status == statusIOErr {
		q.dev.logFailure(r, err)
	}
	written := uint64(0)
	if r.Op == aio.Read {
		written = uint64(n)
		// All of them: how far a read came that failed nobody knows.
		for i := range r.Segments {
			q.vq.Wrote(r.Segments[i].Base, r.Segments[i].Len)
		}
	}
	q.finish(uint16(r.Tag), p, status, written)
	*p = pending{}
}

// finish answers a request. The status byte is the last byte written to it, and
// what the used ring reports is how many bytes from its start were really
// written (2.7.8.2): all of them and the status, or, if the data is short, only as
// far as the data goes, because the status lies behind a gap.
func (q *queue) finish(head uint16, p *pending, status byte, written uint64) {
	p.status[0] = status
	q.vq.Wrote(&p.status[0], 1)
	if written == p.room {
		written++
	}
	q.vq.AddUsed(head, uint32(written))
}

// Publish implements aio.Queue.
func (q *queue) Publish() { q.vq.Publish() }

// Pending implements aio.Queue.
func (q *queue) Pending() bool { return q.vq.Pending() }

// EnableKicks implements aio.Queue.
func (q *queue) EnableKicks() bool { return q.vq.EnableKicks() }

// DisableKicks implements aio.Queue.
func (q *queue) DisableKicks() { q.vq.DisableKicks() }

// logFailure says that the host failed a request.
func (d *Device) logFailure(r *aio.Request, err unix.Errno) {
	d.log.Log(slog.LevelWarn, "disk request failed",
		slog.String("disk", d.id), slog.String("image", d.image.path), slog.String("op", r.Op.String()),
		slog.Int64("offset", r.Offset), slog.Int64("length", r.Length), slog.String("err", err.Error()))
}
