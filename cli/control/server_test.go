package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRequestsReachTheVM(t *testing.T) {
	r := newRig(t, &fakeVM{})
	ctx, c := t.Context(), r.client
	for _, q := range []struct {
		call string
		do   func() error
	}{
		{"pause", func() error { return c.Pause(ctx) }},
		{"resume", func() error { return c.Resume(ctx, false) }},
		{"button", func() error { return c.Stop(ctx) }},
		{"kill", func() error { return c.Kill(ctx) }},
		{"remove vda", func() error { return c.RemoveDisk(ctx, "vda", 0) }},
		{"add path=a,,b in /c", func() error {
			id, err := c.AddDisk(ctx, DiskToAdd{"path=a,,b", "/c"})
			if id != "vdb" {
				t.Errorf("the id is %q", id)
			}
			return err
		}},
	} {
		if err := q.do(); err != nil || !r.vm.has(q.call) {
			t.Errorf("%s: error %v, calls %q", q.call, err, r.vm.calls)
		}
	}
	i, err := c.Info(ctx)
	if err != nil || i.Name != "web" || i.PID != os.Getpid() || i.State != "running" || i.VCPUs != 2 || i.Memory != 64<<20 || i.Uptime <= 0 || len(i.Disks) != 1 {
		t.Errorf("%+v, error %v", i, err)
	}
	s, err := c.Stats(ctx)
	if err != nil || s.Uptime < i.Uptime || s.Engine.Capacity != 64 || *s.Disks[0].Window != 0 || s.Disks[0].Windows["drain"] != 8 {
		t.Errorf("%+v, error %v", s, err)
	}
}

func TestRefusals(t *testing.T) {
	vm := &fakeVM{}
	r := newRig(t, vm)
	ctx := t.Context()
	wantError(t, r.client.ResizeDisk(ctx, "a", 512), 404, "there is no disk a of 512 bytes")
	wantError(t, r.client.RemoveDisk(ctx, "broken", 0), 500, "it failed")
	_, err := r.client.AddDisk(ctx, DiskToAdd{})
	wantError(t, err, 400, "no keys; write path=FILE")
	vm.state = StatePaused
	wantError(t, r.client.Stop(ctx), 409, "web is paused, so that its guest can't power off; run `ebb resume web` before")
	vm.migrating = true
	wantError(t, r.client.Stop(ctx), 409, "web is on its way here, so that its guest can't power off yet; wait until it runs, or `ebb kill web`")
	vm.migrating = false
	if vm.has("button") {
		t.Error("the button was pressed")
	}
}

// A disk that doesn't answer in time is a conflict, not a failure.
func TestPauseInVain(t *testing.T) {
	r := newRig(t, &fakeVM{pauseErr: fmt.Errorf("pausing: disk vda: 3 requests still in flight: %w", context.DeadlineExceeded)})
	wantError(t, r.client.Pause(t.Context()), 409,
		"web can't be paused, as a disk did not answer within 30s: it runs on; `ebb stats web` shows which")
}

// The time for a request bounds its reading, not its handling.
func TestReadLimit(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	vm := &fakeVM{removing: make(chan struct{}), letGo: make(chan struct{})}
	place := claim(t, "web", "")
	place.server = newServer("web", vm, slog.New(slog.DiscardHandler))
	place.server.http.ReadTimeout = 20 * time.Millisecond
	place.server.serve(place.listener)
	defer place.Release()

	removed := make(chan error, 1)
	go func() { removed <- find(t, "web").RemoveDisk(t.Context(), "vda", 0) }()
	within(t, "RemoveDisk", func() { <-vm.removing })
	// A request that came later, and is not finished in time.
	answer := raw(t, "POST /v1/kill HTTP/1.1\r\nHost: ebb\r\nContent-Length: 10\r\n\r\n{")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "could not be read") {
		t.Errorf("the answer is %q", answer)
	}
	if vm.has("kill") {
		t.Error("half a request was obeyed")
	}
	close(vm.letGo)
	within(t, "the answer", func() {
		if err := <-removed; err != nil {
			t.Error(err)
		}
	})
}

// The text others parse: change it only with docs/cli.md and all who read it.
func TestShapeOfJSON(t *testing.T) {
	r := newRig(t, &fakeVM{})
	r.server.started = r.server.started.Add(-1e9)
	for path, want := range map[string]string{
		"/v1/vm": `{"name":"web","pid":PID,"state":"running","vcpus":2,"memory_bytes":67108864,"disks":["vda"],"uptime_seconds":UP}`,
		"/v1/stats": `{"uptime_seconds":UP,` +
			`"engine":{"kind":"fake","capacity":64,"demand":32,"in_flight":3,"lent":1,"written_off":2,"enters":4},` +
			`"disks":[{"id":"vda","demand":0,"in_flight":3,"window":0,"windows":{"drain":8,"pause":0},"reserve":4,"share":0,"lent":1,"written_off":0,"kept":0,"lost":false,"grace_p95_ns":1000000,` +
			`"read":{"requests":1,"bytes":512,"errors":1,"latency":{"p50_ns":1,"p99_ns":2,"p999_ns":0,"max_ns":3}},` +
			`"write":{"requests":0,"bytes":0,"errors":0,"latency":{"p50_ns":0,"p99_ns":0,"p999_ns":0,"max_ns":0}},` +
			`"long":{"requests":0,"bytes":0,"errors":0,"latency":{"p50_ns":0,"p99_ns":0,"p999_ns":0,"max_ns":0}}}]}`,
	} {
		resp, err := r.client.send(t.Context(), "GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var v struct {
			PID json.Number `json:"pid"`
			Up  json.Number `json:"uptime_seconds"`
		}
		if err != nil || json.Unmarshal(text, &v) != nil {
			t.Fatalf("%s: error %v: %s", path, err, text)
		}
		want = strings.NewReplacer("PID", v.PID.String(), "UP", v.Up.String()).Replace(want) + "\n"
		if string(text) != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got\n%swant\n%s", path, text, want)
		}
	}
}

// Nobody waits for a pause: the guest goes on.
func TestClientLeaves(t *testing.T) {
	vm := &fakeVM{pausing: make(chan struct{})}
	r := newRig(t, vm)
	ctx, leave := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- r.client.Pause(ctx) }()
	within(t, "Pause", func() { <-vm.pausing })
	leave()
	within(t, "leaving", func() {
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	until(t, "Pause to give up", func() bool { return vm.busy() == 0 })
}

// After Finish no method of the VM runs, whatever is asked for.
func TestFinish(t *testing.T) {
	vm := &fakeVM{removing: make(chan struct{}), adding: make(chan struct{})}
	r := newRig(t, vm)
	const sentence = "the guest of web has ended; run it again to use it"
	removed, ended := make(chan error, 3), make(chan string, 1)
	go func() { removed <- r.client.RemoveDisk(t.Context(), "vda", 0) }()
	within(t, "RemoveDisk", func() { <-vm.removing })
	go func() { // on storage that doesn't answer
		_, err := r.client.AddDisk(t.Context(), DiskToAdd{"path=a", "/"})
		removed <- err
	}()
	within(t, "AddDisk", func() { <-vm.adding })
	go func() { removed <- r.client.ResizeDisk(t.Context(), "hung", 512) }()
	within(t, "ResizeDisk", func() { <-vm.adding })
	wait, err := r.client.WatchEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		how, err := wait()
		if err != nil {
			t.Error(err)
		}
		ended <- how
	}()
	within(t, "Finish", func() { r.server.Finish(EndPoweredOff) })
	if n := vm.busy(); n != 0 {
		t.Errorf("%d calls have not returned", n)
	}
	for range cap(removed) {
		within(t, "the answer", func() { wantError(t, <-removed, 503, sentence) })
	}
	wantError(t, r.client.Resume(t.Context(), false), 503, sentence)
	if vm.has("resume") {
		t.Error("the VM was used")
	}
	r.server.Finish("stopped") // too late
	select {
	case how := <-ended:
		t.Errorf("the end (%q) is told before all is given back", how)
	default:
	}
	r.place.Release()
	within(t, "the end", func() {
		if how := <-ended; how != EndPoweredOff {
			t.Errorf("the end was %q", how)
		}
	})
	if _, err := r.client.Info(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "there is no VM web ") {
		t.Error(err)
	}
}

// All who watch are told the end, however soon the server follows it.
func TestManyWatchers(t *testing.T) {
	r := newRig(t, &fakeVM{})
	var watching sync.WaitGroup
	for range maxConnections {
		wait, err := find(t, "web").WatchEnd(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() {
			if end, err := wait(); end != "panicked" || err != nil {
				t.Errorf("%q, error %v", end, err)
			}
		})
	}
	r.server.Finish("panicked")
	within(t, "Release", r.place.Release)
	within(t, "the end", watching.Wait)
}

// Those that leave make room.
func TestWatchersLeave(t *testing.T) {
	newRig(t, &fakeVM{})
	for range 2 * maxConnections {
		ctx, leave := context.WithCancel(t.Context())
		c := find(t, "web")
		until(t, "a place", func() bool {
			_, err := c.WatchEnd(ctx)
			return err == nil
		})
		leave()
	}
}

// Who watches a VM whose process is killed, or gives up, is told no end.
func TestWatchInVain(t *testing.T) {
	r := newRig(t, &fakeVM{})
	ctx, leave := context.WithCancel(t.Context())
	wait, err := r.client.WatchEnd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	within(t, "giving up", func() {
		if end, err := wait(); end != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%q, error %v", end, err)
		}
	})
	if wait, err = r.client.WatchEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.server.http.Close() // as the kernel closes what a killed process had
	within(t, "the end", func() {
		if end, err := wait(); end != "" || err != nil {
			t.Errorf("%q, error %v", end, err)
		}
	})
}

// raw sends bytes and returns all that is answered until the server closes.
func raw(t *testing.T, request string) string {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(RuntimeDir(), "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var answer []byte
	within(t, "the answer to "+request[:min(len(request), 60)], func() {
		go func() { _, _ = io.WriteString(c, request) }() // the server may stop reading
		answer, _ = io.ReadAll(c)
	})
	return string(answer)
}

func TestBadRequests(t *testing.T) {
	const tail = " HTTP/1.1\r\nHost: ebb\r\nConnection: close\r\n"
	post := func(path, body string) string {
		return "POST " + path + tail + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	r := newRig(t, &fakeVM{})
	for name, c := range map[string]struct {
		request, status string
		says            string
	}{
		"no HTTP":             {"hello\r\n\r\n", "400 Bad Request", ""},
		"binary":              {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\r\n\r\n", "400 Bad Request", ""},
		"no host":             {"GET /v1/vm HTTP/1.1\r\nConnection: close\r\n\r\n", "400 Bad Request", "Host"},
		"huge header":         {"GET /v1/vm HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 Request Header Fields Too Large", ""},
		"endless header":      {"GET /v1/vm HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 64<<10), "431 Request Header Fields Too Large", ""},
		"no such request":     {"GET /v2/vm" + tail + "\r\n", "404 Not Found", "docs/cli.md"},
		"wrong method":        {"GET /v1/kill" + tail + "\r\n", "404 Not Found", "docs/cli.md"},
		"no disk":             {"DELETE /v1/disks/" + tail + "\r\n", "404 Not Found", "docs/cli.md"},
		"body no JSON":        {post("/v1/disks", "path=a"), "400 Bad Request", "JSON object"},
		"body an array":       {post("/v1/disks", "[]"), "400 Bad Request", "JSON object"},
		"body cut off":        {post("/v1/disks", `{"disk":`), "400 Bad Request", "JSON object"},
		"unknown field":       {post("/v1/disks", `{"disk":"path=a","colour":"blue"}`), "400 Bad Request", "colour"},
		"wrong type":          {post("/v1/disks", `{"disk":7}`), "400 Bad Request", "disk"},
		"two objects":         {post("/v1/disks", `{"disk":"path=a"}{}`), "400 Bad Request", "behind it"},
		"field for none":      {post("/v1/kill", `{"now":true}`), "400 Bad Request", "now"},
		"huge body":           {post("/v1/disks", `{"disk":"`+strings.Repeat("x", 64<<10)+`"}`), "413 Request Entity Too Large", "65536 bytes"},
		"huge body announced": {"POST /v1/kill" + tail + "Content-Length: 99999999999\r\n\r\n" + strings.Repeat("x", 128<<10), "413 Request Entity Too Large", "65536 bytes"},
		"huge chunk":          {"POST /v1/kill" + tail + "Transfer-Encoding: chunked\r\n\r\n80000\r\n" + strings.Repeat("x", 512<<10), "413 Request Entity Too Large", "65536 bytes"},
		"chunk no number":     {"POST /v1/kill" + tail + "Transfer-Encoding: chunked\r\n\r\nzzz\r\n", "400 Bad Request", "could not be read"},
		"deep JSON":           {post("/v1/disks", strings.Repeat("[", 60000)), "400 Bad Request", "JSON object"},
		"negative size":       {"PUT /v1/disks/vda/size" + tail + "Content-Length: 17\r\n\r\n" + `{"size_bytes":-1}`, "400 Bad Request", "size_bytes"},
		"size of an exponent": {"PUT /v1/disks/vda/size" + tail + "Content-Length: 19\r\n\r\n" + `{"size_bytes":1e99}`, "400 Bad Request", "size_bytes"},
	} {
		answer := raw(t, c.request)
		head, body, _ := strings.Cut(answer, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+c.status) || !strings.Contains(answer, c.says) {
			t.Errorf("%s: the answer is %q", name, answer)
		}
		if c.says == "" || c.says == "Host" { // net/http's own answers
			continue
		}
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == "" || strings.Contains(e.Error, "\n") {
			t.Errorf("%s: not one sentence: %q", name, body)
		}
	}
	if len(r.vm.calls) != 0 {
		t.Errorf("the VM was asked for %q", r.vm.calls)
	}
}

// 32 clients are served; others are told so, and the first ones don't notice.
func TestManyClients(t *testing.T) {
	r := newRig(t, &fakeVM{})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	request := func(c net.Conn) (status int, text string) {
		within(t, "an answer", func() {
			_, _ = io.WriteString(c, "GET /v1/vm HTTP/1.1\r\nHost: ebb\r\n\r\n")
			head := make([]byte, 4096)
			n, err := c.Read(head)
			if err != nil {
				t.Error(err)
				return
			}
			text = string(head[:n])
			status = int(text[9]-'0')*100 + int(text[10]-'0')*10 + int(text[11]-'0')
		})
		return status, text
	}
	connect := func() net.Conn {
		c, err := net.Dial("unix", filepath.Join(RuntimeDir(), "web.sock"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		return c
	}
	for range maxConnections {
		if status, text := request(connect()); status != http.StatusOK {
			t.Fatalf("connection %d: %s", len(open), text)
		}
	}
	for range 5 {
		if status, text := request(connect()); status != http.StatusServiceUnavailable || !strings.Contains(text, "32 control connections") {
			t.Errorf("connection %d: %s", len(open), text)
		}
	}
	if status, text := request(open[0]); status != http.StatusOK {
		t.Errorf("the first connection: %s", text)
	}
	// Room is made by those that leave.
	for _, c := range open {
		c.Close()
	}
	until(t, "a place", func() bool { _, err := r.client.Info(t.Context()); return err == nil })
}

// More connections than are accepted wait; the end of the server is theirs too.
func TestFlood(t *testing.T) {
	r := newRig(t, &fakeVM{})
	for range 3 * (maxConnections + maxRefusing) {
		c, err := net.Dial("unix", filepath.Join(RuntimeDir(), "web.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	within(t, "Release", r.place.Release)
}

// A stuck client does not keep the server from its end.
func TestUnfinishedRequest(t *testing.T) {
	r := newRig(t, &fakeVM{})
	c, err := net.Dial("unix", filepath.Join(RuntimeDir(), "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST /v1/kill HTTP/1.1\r\nHost: ebb\r\nContent-Length: 10\r\n\r\n{")
	if _, err := r.client.Info(t.Context()); err != nil {
		t.Error(err)
	}
	within(t, "Release", r.place.Release)
	if r.vm.has("kill") {
		t.Error("half a request was obeyed")
	}
}
