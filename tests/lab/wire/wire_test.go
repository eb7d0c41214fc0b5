package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestFramesComeBackAsSent(t *testing.T) {
	var b bytes.Buffer
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	if err := errors.Join(Write(&b, Stdout, binary), Write(&b, Data, []byte{}), Write(&b, Exit, ExitStatus{Code: 7})); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	want := []struct {
		t Type
		p []byte
	}{{Stdout, binary}, {Data, []byte{}}, {Exit, []byte(`{"Code":7}`)}}
	for _, w := range want {
		typ, p, err := Read(&b)
		if err != nil || typ != w.t || !bytes.Equal(p, w.p) {
			t.Fatalf("got frame %d %q, %v; want %d %q", typ, p, err, w.t, w.p)
		}
	}
	if _, _, err := Read(&b); err != io.EOF {
		t.Fatalf("at the end: %v, want EOF", err)
	}
	if _, _, err := Read(bytes.NewReader(whole[:100])); err != io.ErrUnexpectedEOF {
		t.Fatalf("cut off: %v, want unexpected EOF", err)
	}
}

func TestOverlongFramesAreRefused(t *testing.T) {
	if err := Write(io.Discard, Data, make([]byte, MaxPayload+1)); err == nil {
		t.Error("sent")
	}
	if _, _, err := Read(bytes.NewReader([]byte{byte(Data), 255, 255, 255, 255})); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("received: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{4, 1, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, in []byte) {
		typ, p, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, typ, p); err != nil || !reflect.DeepEqual(b.Bytes(), in[:b.Len()]) {
			t.Fatalf("%x became %x, %v", in, b.Bytes(), err)
		}
	})
}
