package pattern

import (
	"bytes"
	"strings"
	"testing"
)

func TestFillIsCheckedAndDoesNotDependOnTheSplit(t *testing.T) {
	whole, parts := make([]byte, 64*SectorSize), make([]byte, 64*SectorSize)
	Fill(whole, "disk", 1000)
	for i := range uint64(64) {
		Fill(parts[i*SectorSize:(i+1)*SectorSize], "disk", 1000+i)
	}
	if !bytes.Equal(whole, parts) {
		t.Fatal("contents depend on how they are written")
	}
	if err := CheckReader(bytes.NewReader(whole[SectorSize:]), "other", 0, 0); err != nil {
		t.Errorf("nothing to check: %v", err)
	}
	if err := Check(whole, "disk", 1000); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultIsFoundAndNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(p []byte)
		want  string
	}{
		{"one bit", func(p []byte) { p[5*SectorSize+511] ^= 1 }, "sector 5: differs from byte 511 on"},
		{"lost", func(p []byte) { clear(p[3*SectorSize : 4*SectorSize]) }, "sector 3: is all zeroes"},
		{"misplaced", func(p []byte) { copy(p[2*SectorSize:3*SectorSize], p[6*SectorSize:]) }, "sector 2: holds sector 6"},
		{"torn", func(p []byte) { clear(p[1*SectorSize+256 : 2*SectorSize]) }, "sector 1: differs from byte 256 on"},
		{"swapped disks", func(p []byte) { Fill(p, "other", 0) }, "sector 0: holds sector 0 of another disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := make([]byte, 8*SectorSize)
			Fill(p, "disk", 0)
			c.spoil(p)
			err := CheckReader(bytes.NewReader(p), "disk", 0, int64(len(p)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
