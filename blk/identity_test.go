package blk

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestIdentity(t *testing.T) {
	path := writeImage(t, 1<<20)
	i := open(t, path, ImageOptions{})
	id := i.Identity()
	if id.Size != 1<<20 || id.BlockSize != 512 || id.Kind != KindFile || id.ReadOnly || id.Direct || !id.Discard || !id.Zeroes ||
		id.Boot == "" || strings.ContainsAny(id.Boot, " \n") || id.Dev == 0 || id.Ino == 0 {
		t.Errorf("%+v", id)
	}
	text, err := json.Marshal(id)
	var back Identity
	if err != nil || json.Unmarshal(text, &back) != nil || back != id {
		t.Errorf("%s, %v", text, err)
	}
	d := incoming(t, path, ImageOptions{Direct: true})
	if got := d.Identity(); !Shared(id, got) || !got.Direct {
		t.Errorf("%+v and %+v are not shared", id, got)
	}
	if err := d.CheckIncoming(id); err != nil && d.blockSize <= 512 {
		t.Error(err)
	}
}

func TestCachesSafely(t *testing.T) {
	host := Identity{Boot: "a", Dev: 1, Ino: 2}
	with := func(change func(*Identity)) Identity {
		d := host
		change(&d)
		return d
	}
	direct, reader := with(func(d *Identity) { d.Direct, d.Boot = true, "b" }), with(func(d *Identity) { d.ReadOnly, d.Boot = true, "b" })
	for _, c := range []struct {
		name         string
		source, dest Identity
		shared, safe bool
	}{
		{"one file", host, host, true, true},
		{"another host", host, with(func(d *Identity) { d.Boot = "b" }), false, false},
		{"another file", host, with(func(d *Identity) { d.Ino = 3 }), false, false},
		{"another file system", host, with(func(d *Identity) { d.Dev = 3 }), false, false},
		{"no boot id", with(func(d *Identity) { d.Boot = "" }), with(func(d *Identity) { d.Boot = "" }), false, false},
		{"direct at the destination only", host, direct, false, false},
		{"direct at the source only", direct, host, false, false},
		{"direct", direct, direct, true, true},
		{"direct, another host", with(func(d *Identity) { d.Direct = true }), direct, false, true},
		{"read-only", with(func(d *Identity) { d.ReadOnly = true }), reader, false, true},
	} {
		if shared, safe := Shared(c.source, c.dest), CachesSafely(c.source, c.dest); shared != c.shared || safe != c.safe {
			t.Errorf("%s: shared %v, safe %v", c.name, shared, safe)
		}
	}
}

func TestCheckIncoming(t *testing.T) {
	for _, c := range []struct {
		name   string
		source func(*Identity) // differs from what the destination has
		dest   func(*Image)
		says   string // empty: accepted
	}{
		{"the same", nil, nil, ""},
		{"another kind", func(s *Identity) { s.Kind = KindDevice }, nil, ""},
		{"smaller here", func(s *Identity) { s.Size *= 2 }, nil, "1048576 bytes, fewer than the 2097152"},
		{"larger here", func(s *Identity) { s.Size /= 2 }, nil, "1048576 bytes, more than the 524288"},
		{"larger blocks here", nil, func(i *Image) { i.blockSize = 4096 }, "blocks of 4096 bytes here, but the guest may use 512"},
		{"smaller blocks here", func(s *Identity) { s.BlockSize = 4096 }, nil, ""},
		{"no discard here", nil, func(i *Image) { i.discard = false }, "can't discard"},
		{"discard only here", func(s *Identity) { s.Discard = false }, nil, ""},
		{"no zeroes here", nil, func(i *Image) { i.zeroes = false }, "can't write zeroes"},
		{"read-only there", func(s *Identity) { s.ReadOnly = true }, nil, "add readonly"},
		{"read-only here", nil, func(i *Image) { i.readOnly = true }, "leave out readonly"},
		{"another file of this host", func(s *Identity) { s.Boot, s.Ino = (&Image{}).Identity().Boot, 99 }, nil, "not the image the source has"},
		{"nonsense", func(s *Identity) { s.BlockSize = 0 }, nil, "makes no sense"},
		{"odd blocks", func(s *Identity) { s.BlockSize = 768 }, nil, "makes no sense"},
		{"huge blocks", func(s *Identity) { s.BlockSize, s.PhysicalSize = 8192, 8192 }, nil, "makes no sense"},
		{"huge physical blocks", func(s *Identity) { s.PhysicalSize = 1 << 20 }, nil, "makes no sense"},
		{"half a block", func(s *Identity) { s.BlockSize, s.Size = 4096, 1<<20+512 }, nil, "makes no sense"},
		{"no kind", func(s *Identity) { s.Kind = "" }, nil, "makes no sense"},
	} {
		i := testImage()
		source := i.Identity()
		source.Boot = "of another host"
		if c.source != nil {
			c.source(&source)
		}
		if c.dest != nil {
			c.dest(i)
		}
		before := i.Identity()
		err := i.CheckIncoming(source)
		switch {
		case c.says != "":
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), i.path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", c.name, err)
			}
			if i.Identity() != before {
				t.Errorf("%s: refused, but changed", c.name)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		default:
			now := i.Identity()
			now.Kind, now.Boot, now.Dev, now.Ino, now.MemoryAlign = source.Kind, source.Boot, source.Dev, source.Ino, source.MemoryAlign
			if now != source {
				t.Errorf("%s: the guest sees %+v now, it saw %+v", c.name, now, source)
			}
		}
	}
}
