package migration

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// filePiece is how much of a file goes into one frame, in bytes.
const filePiece = 256 << 10

// sendFiles sends files one after another, as HELLO has announced them, beside whatever else is sent.
func (d *sourceDriver) sendFiles(ctx context.Context, files []File) error {
	frame := make([]byte, wire.HeaderSize+filePiece)
	for _, f := range files {
		for left := f.Size; left > 0; {
			n, err := io.ReadFull(f.Content, frame[wire.HeaderSize:][:min(left, filePiece)])
			if err != nil {
				return fmt.Errorf("reading the guest's %s: %w", f.Name, err)
			}
			if d.limit != nil {
				_ = d.limit.WaitN(ctx, n)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.control.SendFrame(wire.File, frame[:wire.HeaderSize+n]); err != nil {
				return d.unsent(err)
			}
			left -= int64(n)
		}
	}
	return nil
}

func closeFiles(files []File) {
	for _, f := range files {
		f.Content.Close()
	}
}

// fileWriter puts pieces into the files that were announced.
type fileWriter struct {
	machine Incoming
	list    []fileInfo
	to      io.Writer
	left    int64  // of the present one
	piece   []byte // that came last
}

// receive takes a FILE from c.
func (w *fileWriter) receive(c *wire.Conn, h wire.Header) error {
	if w.piece == nil {
		w.piece = make([]byte, wire.MaxPages)
	}
	piece := w.piece[:h.Length]
	_, err := io.ReadFull(c.Reader(), piece)
	if err == nil {
		err = c.Check(h)
	}
	if err != nil {
		return lostSource(err)
	}
	return w.write(piece)
}

var errFile = errors.New("more of files came than was announced")

// write takes the next piece.
func (w *fileWriter) write(piece []byte) (err error) {
	for len(piece) > 0 {
		if w.left == 0 {
			if len(w.list) == 0 {
				return errFile
			}
			f := w.list[0]
			if w.to, err = w.machine.File(f.Name, f.Size); err != nil {
				return err
			}
			w.list, w.left = w.list[1:], f.Size
		}
		n := min(int64(len(piece)), w.left)
		if _, err := w.to.Write(piece[:n]); err != nil {
			return err
		}
		piece, w.left = piece[n:], w.left-n
	}
	return nil
}

// complete reports whether all has come.
func (w *fileWriter) complete() bool { return w.left == 0 && len(w.list) == 0 }
