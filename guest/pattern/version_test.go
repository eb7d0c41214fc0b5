package pattern

import (
	"strings"
	"testing"
)

func TestVersionsAreToldApart(t *testing.T) {
	const serial, sector = "disk", 1000
	p := make([]byte, 8*SectorSize)
	v := Version{Epoch: 7, Seq: 3}
	v.Fill(p, serial, sector)
	if got, err := ReadVersion(p, serial, sector); got != v || err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		name  string
		spoil func(p []byte)
		want  string
	}{
		{"torn", func(p []byte) { Version{7, 2}.Fill(p[4*SectorSize:], serial, sector+4) }, "sector 1004: is of {Epoch:7 Seq:2}, and sector 1000 of {Epoch:7 Seq:3}"},
		{"one bit", func(p []byte) { p[5*SectorSize+511] ^= 1 }, "sector 1005: differs from byte 511 on"},
		{"misplaced", func(p []byte) { v.Fill(p, serial, sector+8) }, "sector 1000: holds sector 1008"},
		{"another disk", func(p []byte) { v.Fill(p, "other", sector) }, "sector 1000: holds sector 1000 of another disk"},
		{"never written", func(p []byte) { clear(p) }, "sector 1000: not written by this"},
		{"the other kind", func(p []byte) { Fill(p, serial, sector) }, "sector 1000: not written by this"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := append([]byte(nil), p...)
			c.spoil(q)
			if _, err := ReadVersion(q, serial, sector); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
