package migration

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration/ram"
	"github.com/ebb-vmm/ebb/migration/wire"
)

// sent is a frame.
type sent struct {
	typ     wire.Type
	payload any
}

// stateOf is a STATE that needs memory as of a mark.
func stateOf(mark byte) sent { return sent{wire.State, append([]byte{mark, 11: 0}, "state"...)} }

// A source that sends what is not its to send, or before what has to come first, ends the migration, and the machine
// at the destination is thrown away.
func TestSourceOutOfTurn(t *testing.T) {
	file, ahead, state := sent{wire.File, []byte("file")}, sent{wire.Ahead, struct{}{}}, sent{wire.State, make([]byte, 12)}
	for name, c := range map[string]struct {
		frames []sent
		says   string
	}{
		"ahead before the files":  {[]sent{ahead}, "AHEAD, which is not its to send now"},
		"ahead amid the files":    {[]sent{file, ahead}, "AHEAD, which is not its to send now"},
		"ahead twice":             {[]sent{file, file, ahead, ahead}, "AHEAD, which is not its to send now"},
		"more of files":           {[]sent{file, file, file}, errFile.Error()},
		"a file after ahead":      {[]sent{file, file, ahead, file}, errFile.Error()},
		"state before ahead":      {[]sent{file, file, {wire.Handover, nil}, state}, "STATE, which is not its to send now"},
		"state without the disks": {[]sent{file, file, ahead, state}, "STATE, which is not its to send now"},
		"state twice":             {[]sent{file, file, ahead, {wire.Handover, nil}, stateOf(1), stateOf(1)}, "STATE, which is not its to send now"},
		"a short state":           {[]sent{file, file, ahead, {wire.Handover, nil}, {wire.State, make([]byte, 11)}}, "a state of 11 bytes"},
		"commit before memory":    {[]sent{file, file, ahead, {wire.Handover, nil}, stateOf(1), {wire.Commit, nil}}, "COMMIT, which is not its to send now"},
		"commit before a state":   {[]sent{file, file, ahead, {wire.Commit, nil}}, "COMMIT, which is not its to send now"},
		"the destination's":       {[]sent{{wire.Loaded, nil}}, "LOADED, which is not its to send now"},
		"memory's":                {[]sent{{wire.Mark, []byte("mark")}}, "MARK, which is not its to send now"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "vda")
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() {
				_, err := Receive(ctx, l, ReceiveOptions{Host: newFakeHost(w, "vda")})
				ended <- err
			}()
			control, _ := accepted(t, w, l.Addr().String(), 8)
			for _, f := range c.frames {
				if err := control.Send(f.typ, f.payload); err != nil {
					break // it has ended already
				}
			}
			for typ := wire.Accept; typ != wire.Abort; { // which tells the source why
				h, err := control.Next()
				if err != nil {
					break
				}
				typ = h.Type
				if body, _ := control.Payload(h); typ == wire.Abort && !strings.Contains(wire.Reason(body).Error(), c.says) {
					t.Errorf("the source is told %s", body)
				}
			}
			control.Close()
			if err := <-ended; err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want one with %q", err, c.says)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.runner != "source" {
				t.Errorf("the guest runs at %q", w.runner)
			}
		})
	}
}

// STATE, which is sent behind the last of memory, may come before it: it is loaded when that has come, too, and forgotten if the source
// wants the images back.
func TestStateWaitsForMemory(t *testing.T) {
	w := newWorld(t, "vda")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := Receive(t.Context(), l, ReceiveOptions{Host: newFakeHost(w, "vda")})
		ended <- err
	}()
	control, memory := accepted(t, w, l.Addr().String(), 8)
	send := func(c *wire.Conn, frames ...sent) {
		t.Helper()
		for _, f := range frames {
			if err := c.Send(f.typ, f.payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect := func(typ wire.Type) {
		t.Helper()
		if err := control.Expect(typ, nil); err != nil {
			t.Fatal(err)
		}
	}
	mark := func(nr byte) {
		t.Helper()
		send(memory, sent{wire.Mark, []byte{nr, 0, 0, 0}})
		if h, err := memory.Next(); err != nil || h.Type != wire.Mark {
			t.Fatal(h, err)
		} else if _, err := memory.Payload(h); err != nil {
			t.Fatal(err)
		}
	}
	file := sent{wire.File, []byte("file")}
	send(control, file, file, sent{wire.Ahead, struct{}{}}, sent{wire.Handover, nil})
	expect(wire.Ready)
	send(control, stateOf(1), sent{wire.GiveBack, nil})
	expect(wire.Given) // and not LOADED
	mark(1)
	send(control, sent{wire.Handover, nil})
	expect(wire.Ready) // nor now
	mark(2)
	send(control, stateOf(2))
	expect(wire.Loaded)
	send(control, sent{wire.GiveBack, nil})
	expect(wire.Given)
	send(control, sent{wire.Handover, nil})
	expect(wire.Ready)
	send(control, stateOf(3))
	// When so much of another frame has gone, which is more than sockets hold, that one has been looked at.
	if _, err := control.Write(append([]byte{byte(wire.State), 7: 3}, make([]byte, 32<<20)...)); err != nil {
		t.Fatal(err)
	}
	mark(3)
	expect(wire.Loaded)
	control.Close()
	if err := <-ended; !errors.Is(err, ErrUncommitted) {
		t.Error(err)
	}
}

// accepted is a source's connections, control and memory, when all is ready for its files, two of so many bytes together.
func accepted(t *testing.T, w *world, address string, bytes int64) (control, memory *wire.Conn) {
	t.Helper()
	open := func() *wire.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		conn, err := wire.Open(c, patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return conn
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	control = open()
	must(control.Send(wire.Hello, hello{
		Name: "guest", Streams: 1, Memory: []memoryRange{{0, 64 * ram.PageSize}}, Machine: json.RawMessage("{}"),
		Files: []fileInfo{{"one", bytes / 2}, {"two", bytes / 2}},
	}))
	var a accept
	must(control.Expect(wire.Accept, &a))
	memory = open()
	must(memory.Send(wire.Join, join{Session: a.Session}))
	must(memory.Expect(wire.Joined, &joined{}))
	w.mu.Lock()
	for disk := range w.reserved {
		w.reserved[disk], w.owner[disk] = "", ""
	}
	w.mu.Unlock()
	must(control.Send(wire.Offered, nil))
	must(control.Expect(wire.Reserved, nil))
	return control, memory
}

// A destination that says that the guest runs before it was told to, or sends what is the source's to send, ends the migration.
func TestDestinationOutOfTurn(t *testing.T) {
	for _, typ := range []wire.Type{wire.Running, wire.Commit} {
		t.Run(typ.String(), func(t *testing.T) {
			w := newWorld(t, "vda")
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				control := greeted(l)
				if control == nil {
					return
				}
				defer control.Close()
				_ = control.Send(typ, nil)
				for { // until the source is gone
					h, err := control.Next()
					if err != nil {
						return
					}
					if _, err := control.Payload(h); err != nil {
						return
					}
				}
			}()
			o := Options{Name: "guest", Address: l.Addr().String(), Streams: 1, Limits: Limits{Downtime: time.Second, Stall: time.Second, Timeout: patience}}
			_, err = Send(t.Context(), o, newFakeGuest(w, &fakeDisk{world: w, id: "vda"}))
			if err == nil || !strings.Contains(err.Error(), typ.String()+", which is not its to send now") {
				t.Errorf("%v", err)
			}
			w.atSource()
		})
	}
}

// greeted is the control connection of a source that was told that it may come, with one connection for memory. nil: it didn't come.
func greeted(l net.Listener) *wire.Conn {
	next := func(t wire.Type, answer wire.Type, payload any) *wire.Conn {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		conn, err := wire.Open(c, patience)
		if err != nil || conn.Expect(t, &struct{}{}) != nil || conn.Send(answer, payload) != nil {
			return nil
		}
		return conn
	}
	control := next(wire.Hello, wire.Accept, accept{"session", json.RawMessage("{}")})
	if control == nil || next(wire.Join, wire.Joined, joined{time.Now().UnixNano()}) == nil ||
		control.Expect(wire.Offered, nil) != nil || control.Send(wire.Reserved, nil) != nil {
		return nil
	}
	return control
}

// What anybody may send to the port costs little memory, however long its lists are.
func TestLongLists(t *testing.T) {
	body := []byte(`{"files":[{}` + strings.Repeat(",{}", 300_000) + `]}`)
	n := testing.AllocsPerRun(1, func() {
		if err := wire.Decode(body, &hello{}); err == nil {
			t.Error("it was decoded")
		}
	})
	if n > 1000 {
		t.Errorf("%v allocations", n)
	}
	for text, want := range map[string]int{`{}`: 0, `{"files":null}`: 0, `{"files":[]}`: 0, `{"files":[{"name":"a"},{}]}`: 2} {
		var h hello
		if err := wire.Decode([]byte(text), &h); err != nil || len(h.Files) != want {
			t.Errorf("%s: %d files, %v", text, len(h.Files), err)
		}
	}
	if err := wire.Decode([]byte(`{"files":{}}`), &hello{}); err == nil {
		t.Error("no list was decoded")
	}
}
