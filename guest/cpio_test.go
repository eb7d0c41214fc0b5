package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
)

func TestArchiveIsReadByAnotherReader(t *testing.T) {
	var b bytes.Buffer
	a := NewArchive(&b)
	a.CharDevice("/dev/console", 0o600, 5, 1)
	a.File("bin/odd name", 0o755, []byte("12345"))
	a.Symlink("/bin/sh", "busybox")
	a.Dir("/dev", 0o700) // there already
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%512 != 0 {
		t.Errorf("%d bytes are not whole blocks", b.Len())
	}
	// The reader does not know device numbers; they are the 10th and 11th field of the header.
	if header := b.Bytes()[bytes.Index(b.Bytes(), []byte("dev/console"))-110:]; string(header[78:94]) != "0000000500000001" {
		t.Errorf("device number %s", header[78:94])
	}
	var got []string
	r := cpio.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join([]string{h.Mode.String(), h.Name, h.Linkname, string(data)}, "|"))
	}
	var names []string
	for _, g := range got {
		names = append(names, strings.Split(g, "|")[1])
	}
	if want := []string{"dev", "dev/console", "bin", "bin/odd name", "bin/sh"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	if !strings.HasSuffix(got[3], "||12345") || !strings.HasSuffix(got[4], "|busybox|") {
		t.Errorf("contents: %q", got)
	}
}

type failingWriter struct{ n int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

func TestArchiveReportsTheFirstError(t *testing.T) {
	a := NewArchive(&failingWriter{200})
	a.File("/a", 0o644, make([]byte, 1000))
	a.File("/b", 0o644, nil)
	if err := a.Close(); err == nil || err.Error() != "full" {
		t.Errorf("%v", err)
	}
}

func TestInitrdIsReproducibleAndTakesTheFirstOfTwo(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"init", "one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("contents of "+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := InitrdOptions{Init: filepath.Join(dir, "init"), Files: []File{
		{Path: "/lib/x", Host: filepath.Join(dir, "one")},
		{Path: "//lib/x", Host: filepath.Join(dir, "two")},
	}}
	var first, second bytes.Buffer
	if err := errors.Join(WriteInitrd(&first, o), WriteInitrd(&second, o)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs differ")
	}
	if !bytes.Contains(first.Bytes(), []byte("contents of one")) || bytes.Contains(first.Bytes(), []byte("contents of two")) {
		t.Error("the first file of a name should count")
	}
	o.Files[0].Host = filepath.Join(dir, "absent")
	if err := WriteInitrd(io.Discard, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestStripSignature(t *testing.T) {
	body := []byte("\x7fELF module")
	info := make([]byte, 12)
	binary.BigEndian.PutUint32(info[8:], 100)
	signed := slices.Concat(body, make([]byte, 100), info, []byte("~Module signature appended~\n"))
	if got := stripSignature(signed); !bytes.Equal(got, body) {
		t.Errorf("%d bytes are left of %d", len(got), len(body))
	}
	for _, same := range [][]byte{body, nil, signed[105:], signed[len(signed)-30:]} {
		if got := stripSignature(same); !bytes.Equal(got, same) {
			t.Errorf("%q became %q", same, got)
		}
	}
}
