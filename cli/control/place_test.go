package control

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// answers checks that the VM is found by the name that it says.
func answers(t *testing.T, by, name string) {
	t.Helper()
	if i, err := find(t, by).Info(t.Context()); err != nil || i.Name != name {
		t.Errorf("%s: %+v, error %v", by, i, err)
	}
}

func serve(t *testing.T, name, path string) *Place {
	t.Helper()
	p := claim(t, name, path)
	p.Serve(&fakeVM{}, slog.New(slog.DiscardHandler))
	return p
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}

func TestPermissions(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	claim(t, "web", "")
	dir := RuntimeDir()
	for path, want := range map[string]fs.FileMode{
		dir: fs.ModeDir | 0o700, dir + "/web.sock": fs.ModeSocket | 0o600, dir + "/web.lock": 0o600,
	} {
		if got := mode(t, path); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

// A directory that others may enter is closed to them.
func TestOpenDirectoryIsClosed(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if err := os.Mkdir(RuntimeDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	claim(t, "web", "")
	if got := mode(t, RuntimeDir()).Perm(); got != 0o700 {
		t.Errorf("mode %v", got)
	}
}

// A link in the directory's place would have us close somebody else's.
func TestLinkedDirectory(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	other := t.TempDir()
	if err := errors.Join(os.Chmod(other, 0o755), os.Symlink(other, RuntimeDir())); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim("web", ""); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Error(err)
	}
	if got := mode(t, other).Perm(); got != 0o755 {
		t.Errorf("the other directory has mode %v now", got)
	}
}

func TestReleaseLeavesNothing(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	elsewhere := t.TempDir()
	p, q := serve(t, "web", ""), serve(t, "db", filepath.Join(elsewhere, "db"))
	wantFiles(t, RuntimeDir(), "db.lock", "db.sock", "web.lock", "web.sock")
	wantFiles(t, elsewhere, "db", "db.lock")
	answers(t, "web", "web")
	answers(t, "db", "db")
	answers(t, elsewhere+"/db", "db")
	p.Release()
	q.Release()
	wantFiles(t, RuntimeDir())
	wantFiles(t, elsewhere)
}

func TestNameInUse(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	serve(t, "web", "")
	for _, path := range []string{"", filepath.Join(t.TempDir(), "s")} {
		_, err := Claim("web", path)
		if err == nil || err.Error() != "--name web: another VM on this host has this name; choose a different one" {
			t.Error(err)
		}
	}
	answers(t, "web", "web")
}

// What a killed process leaves: a socket nobody listens at, a link to one, a lock file.
func TestStaleSocket(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	elsewhere := filepath.Join(t.TempDir(), "s")
	for _, c := range []struct{ before, now string }{{"", ""}, {"", elsewhere}, {elsewhere, ""}, {elsewhere, elsewhere}} {
		dead := claim(t, "web", c.before)
		dead.listener.Close() // all that the kernel does for a dead process
		for _, l := range dead.locks {
			l.Close()
		}
		if _, err := find(t, "web").Info(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "the VM web runs no more ") {
			t.Errorf("before %q: %v", c.before, err)
		}
		p := serve(t, "web", c.now)
		answers(t, "web", "web")
		p.Release()
		wantFiles(t, RuntimeDir())
		os.Remove(elsewhere) // if nobody replaced it
		os.Remove(elsewhere + ".lock")
	}
}

// A path of somebody else's is left alone.
func TestControlPathInUse(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir := t.TempDir()
	file, theirs, ours := dir+"/file", dir+"/theirs", dir+"/ours"
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serve(t, "web", ours)
	for path, why := range map[string]string{
		file:                                 "no socket",
		dir + "/link":                        "no socket",
		dir:                                  "no socket",
		theirs:                               "another program listens there",
		ours:                                 "another VM has it",
		dir + "/no/such":                     "no such file or directory",
		RuntimeDir() + "/any":                "for ebb's own files",
		dir + "/" + strings.Repeat("x", 200): "200",
	} {
		_, err := Claim("db", path)
		if err == nil || !strings.HasPrefix(err.Error(), "--control "+path+": ") || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", path, err)
		}
		wantFiles(t, RuntimeDir(), "web.lock", "web.sock")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, error %v", text, err)
	}
	answers(t, "web", "web")
}

// A file in the name's place is nobody's that we know.
func TestForeignFile(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if err := os.MkdirAll(RuntimeDir()+"/web.sock", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim("web", ""); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Error(err)
	}
	wantFiles(t, RuntimeDir(), "web.sock")
}

// Socket addresses have 107 bytes, and paths more.
// Nor is a file that only has the name of a lock: other programs have such, too.
func TestForeignLock(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir := t.TempDir()
	path := filepath.Join(dir, "Cargo")
	if err := os.WriteFile(path+lockSuffix, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim("web", path); err == nil || !strings.Contains(err.Error(), "--control "+path) || !strings.Contains(err.Error(), "Cargo.lock") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, dir, "Cargo.lock")
	if got, err := os.ReadFile(path + lockSuffix); err != nil || string(got) != "precious" {
		t.Errorf("it has %q, error %v", got, err)
	}
}

func TestLongPaths(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(t.TempDir(), strings.Repeat("d", 200)))
	name := strings.Repeat("n", 64)
	serve(t, name, "")
	answers(t, name, name)
	elsewhere := filepath.Join(t.TempDir(), strings.Repeat("e", 200))
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, "web", elsewhere+"/s")
	answers(t, "web", "web")
	answers(t, elsewhere+"/s", "web")
}

// Of several that want a name at once, at most one has it, while others come and go.
func TestRaceForName(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	var (
		racing  sync.WaitGroup
		holders atomic.Int32
		had     atomic.Int32
	)
	for range 8 {
		racing.Go(func() {
			for range 200 {
				p, err := Claim("web", "")
				if err != nil {
					if !strings.Contains(err.Error(), "another VM") {
						t.Error(err)
					}
					continue
				}
				had.Add(1)
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d have the name", n)
				}
				holders.Add(-1)
				p.Release()
			}
		})
	}
	within(t, "the race", racing.Wait)
	if had.Load() == 0 {
		t.Error("nobody had the name")
	}
	wantFiles(t, RuntimeDir())
}

func TestWrongNames(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web":         "there is no VM web (no socket of it in " + RuntimeDir() + "); `ebb list` shows those that run",
		file:          file + " is no VM's socket; `ebb list` shows the VMs that run",
		file + "/web": "there is no VM " + file + "/web (no socket of it in " + file + "/web); `ebb list` shows those that run",
	} {
		if _, err := find(t, name).Info(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	for _, name := range []string{"", "a b", "..", "-x", strings.Repeat("n", 65)} {
		if _, err := Find(name); err == nil || !strings.HasSuffix(err.Error(), "is no VM's name; `ebb list` shows those that run") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A process that speaks something else, or is gone in the middle.
func TestNoServer(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ says, want string }{
		{"", "ended before it answered; `ebb list`"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "ended before it answered; `ebb list`"},
		{"220 mail\r\n", "is not reached"},
		{"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n", "418"},
	} {
		path := filepath.Join(dir, "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(c.says))
				conn.Close()
			}
		}()
		within(t, "Info", func() {
			if _, err := find(t, path).Info(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, want %s", c.says, err, c.want)
			}
		})
		l.Close()
	}
}

func TestNames(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if names, err := Names(); len(names) != 0 || err != nil {
		t.Errorf("%q, error %v", names, err)
	}
	claim(t, "web", "")
	claim(t, "db", "")
	if names, err := Names(); strings.Join(names, " ") != "db web" || err != nil {
		t.Errorf("%q, error %v", names, err)
	}
	t.Setenv("XDG_RUNTIME_DIR", os.Args[0]) // a file
	if _, err := Names(); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Error(err)
	}
	if _, err := Claim("web", ""); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Error(err)
	}
}

func TestRuntimeDir(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	if d := RuntimeDir(); d != "/run/ebb" {
		t.Error(d)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if d := RuntimeDir(); d != "/run/user/7/ebb" {
		t.Error(d)
	}
}

// The lock is not passed on to children.
func TestChildrenHaveNoClaim(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	p := claim(t, "web", "")
	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	claim(t, "web", "")
	if err := errors.Join(in.Close(), child.Wait()); err != nil {
		t.Error(err)
	}
}
