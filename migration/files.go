package migration

import (
	"errors"
	"fmt"
	"io"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// filePiece is how much of a file goes into one frame, in bytes.
const filePiece = 256 << 10

// sendFiles sends files one after another, as HELLO has announced them.
func sendFiles(c *wire.Conn, files []File) error {
	buf := make([]byte, filePiece)
	for _, f := range files {
		for left := f.Size; left > 0; {
			n, err := io.ReadFull(f.Content, buf[:min(left, filePiece)])
			if err != nil {
				return fmt.Errorf("reading the guest's %s: %w", f.Name, err)
			}
			if err := c.Send(wire.File, buf[:n]); err != nil {
				return err
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
	left    int64 // of the present one
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
