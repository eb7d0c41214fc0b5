package plain

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// all has everything that can be written.
type all struct {
	Flag           bool
	A              int8
	B              int16
	C              int32
	D              int64
	E              int
	F              uint8
	G              uint16
	H              uint32
	I              uint64
	Real           float64
	Text           string
	Bytes          []byte
	List           []item
	Four           [4]uint16
	_              [3]uint32
	Maybe, Nothing *item
	Inner          struct{ X, Y uint8 }
}

type item struct {
	Name  string
	Parts []uint32
}

func TestForm(t *testing.T) {
	v := all{
		Flag: true, A: -1, B: -2, C: -3, D: -4, E: -5, F: 6, G: 0x0708, H: 0x090a0b0c, I: 0x0102030405060708,
		Real: 1, Text: "ab", Bytes: []byte{1, 2, 3}, List: []item{{Name: "x", Parts: []uint32{7}}}, Four: [4]uint16{1, 2, 3, 4},
		Maybe: &item{}, Inner: struct{ X, Y uint8 }{8, 9},
	}
	want := "\x01\xff\xfe\xff\xfd\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xfb\xff\xff\xff\xff\xff\xff\xff" +
		"\x06\x08\x07\x0c\x0b\x0a\x09\x08\x07\x06\x05\x04\x03\x02\x01" + "\x00\x00\x00\x00\x00\x00\xf0\x3f" +
		"\x02\x00\x00\x00ab" + "\x03\x00\x00\x00\x01\x02\x03" +
		"\x01\x00\x00\x00" + "\x01\x00\x00\x00x" + "\x01\x00\x00\x00\x07\x00\x00\x00" +
		"\x01\x00\x02\x00\x03\x00\x04\x00" + "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x08\x09"
	got := Marshal(v)
	if string(got) != want {
		t.Errorf("%x\nwant %x", got, want)
	}
	var back all
	if err := Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, v) {
		t.Errorf("%+v (%v), want %+v", back, err, v)
	}
	for n := range got {
		if err := Unmarshal(got[:n], new(all)); err == nil {
			t.Errorf("%d bytes of %d are enough", n, len(got))
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		bytes string
		into  any
		says  string
	}{
		{"", new(uint8), "too early"},
		{"\x01\x02", new(uint8), "1 bytes too many"},
		{"\x02", new(bool), "0x2 where 0 or 1"},
		{"\x02", new(*bool), "0x2 where 0 or 1"},
		{"\xff\xff\xff\xffab", new(string), "too early"},
		{"\xff\xff\xff\xffab", new([]byte), "too early"},
		{"\x02\x00\x00\x00\x00\x00\x00", new([]uint16), "too early"},
		{"\xff\xff\xff\xff", new([]struct{}), "too early"},
		{"\x02\x00\x00\x00" + strings.Repeat("\x00", 15), new([]item), "too early"}, // 8 bytes each
	} {
		if err := Unmarshal([]byte(c.bytes), c.into); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q into %T: %v, want %q", c.bytes, c.into, err, c.says)
		}
	}
}

// Whatever is written is read as it was.
func TestThereAndBack(t *testing.T) {
	values := rapid.Make[all]()
	rapid.Check(t, func(t *rapid.T) {
		b := Marshal(values.Draw(t, "value"))
		var back all
		if err := Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if again := Marshal(back); !bytes.Equal(again, b) {
			t.Fatalf("%x, read and written %x", b, again)
		}
	})
}

// FuzzUnmarshal reads anything: it ends, and what it takes has that form alone.
func FuzzUnmarshal(f *testing.F) {
	f.Add(Marshal(all{List: []item{{Name: "x", Parts: []uint32{1, 2}}}, Bytes: []byte("bytes")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v all
		if Unmarshal(b, &v) != nil {
			return
		}
		if again := Marshal(v); !bytes.Equal(again, b) {
			t.Errorf("%x is read and written as %x", b, again)
		}
	})
}
