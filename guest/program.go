package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// LackError says what building takes and this machine hasn't got: a program, or Debian's packages.
type LackError struct{ What string }

func (e LackError) Error() string { return e.What }

// File is one file of an initramfs.
type File struct {
	Path string // in the guest, absolute
	Host string // where its contents come from
	Mode uint32 // permissions; 0: as the host file's
}

// ProgramFiles returns a host program (a path, or a name looked up in PATH and the sbin folders) as /bin/<name>,
// together with the shared libraries and the loader it needs, at their own paths.
func ProgramFiles(ctx context.Context, program string) ([]File, error) {
	host, err := findProgram(program)
	if err != nil {
		return nil, err
	}
	files := []File{{Path: "/bin/" + filepath.Base(program), Host: host, Mode: 0o755}}
	out, err := runIn(ctx, "", "ldd", host)
	if err != nil {
		if strings.Contains(string(out)+err.Error(), "not a dynamic executable") {
			return files, nil
		}
		return nil, err
	}
	// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)", "linux-vdso.so.1 (0x...)"
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) >= 3 && fields[1] == "=>" {
			fields = fields[2:]
		}
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "linux-vdso"):
		case strings.HasPrefix(fields[0], "/"):
			files = append(files, File{Path: fields[0], Host: fields[0], Mode: 0o755})
		default:
			return nil, fmt.Errorf("%s: shared library missing: %s", host, strings.TrimSpace(line))
		}
	}
	return files, nil
}

func findProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", LackError{fmt.Sprintf("%s is not installed on this machine (Debian: apt-get install %s)", name, debianPackage(name))}
}

func debianPackage(program string) string {
	switch program {
	case "busybox":
		return "busybox-static"
	case "mke2fs", "e2fsck":
		return "e2fsprogs"
	}
	return program
}

// BuildProgram compiles a main package of this module ("./guest/init") into a small static binary and returns its
// path, dir/bin/<name>. It needs the go command; when nothing changed it takes a few hundred milliseconds.
func BuildProgram(ctx context.Context, dir, pkg string) (string, error) {
	root, err := ProjectRoot()
	if err != nil {
		return "", err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return "", LackError{"the go command is missing: programs for guests are compiled when they are needed"}
	}
	out := filepath.Join(dir, "bin", strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-"))
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(dir, "bin", ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.CommandContext(ctx, goTool, "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", pkg, err, strings.TrimSpace(string(said)))
	}
	return out, nil
}

// ProjectRoot is the folder of ebb's go.mod: the working directory or one above it.
func ProjectRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/ebb-vmm/ebb\n") {
			return dir, nil
		}
		if dir == "/" {
			return "", fmt.Errorf("%s is not inside ebb's source tree: guests and labs are built from it", wd)
		}
	}
}

// BuildDir is where everything fetched or built is kept: build/ in the project's root.
func BuildDir() (string, error) {
	root, err := ProjectRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "build"), nil
}
