package blk

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/aio"
)

// ErrorPolicy is what becomes of a request that the host fails.
type ErrorPolicy uint8

const (
	// ErrorsDefault stops the guest when the storage is full, and reports other failures.
	ErrorsDefault ErrorPolicy = iota
	ErrorsReport              // the guest gets VIRTIO_BLK_S_IOERR
	ErrorsStop                // the guest is stopped, and the request carried out again when it is resumed
)

// ParseErrorPolicy reads "report" or "stop". The error doesn't repeat what it was given.
func ParseErrorPolicy(s string) (ErrorPolicy, error) {
	switch s {
	case "report":
		return ErrorsReport, nil
	case "stop":
		return ErrorsStop, nil
	}
	return 0, fmt.Errorf("write report or stop, or leave it out: then only a full disk stops the guest")
}

func (p ErrorPolicy) stops(err unix.Errno) bool {
	return p == ErrorsStop || p == ErrorsDefault && (err == unix.ENOSPC || err == unix.EDQUOT)
}

// keep implements aio.PortConfig.Keep.
func (d *Device) keep(f aio.Failure) bool {
	if d.stop == nil || !d.errors.stops(f.Err) {
		return false
	}
	d.log.Log(slog.LevelWarn, "disk request failed and is kept until the guest is resumed",
		slog.String("disk", d.id), slog.String("image", d.image.path), slog.String("op", f.Op.String()),
		slog.Int64("offset", f.Offset), slog.Int64("length", f.Length), slog.String("err", f.Err.Error()))
	before := d.resumes.Load()
	d.stop(f, func() bool { return d.resumes.Load() != before })
	return true
}
