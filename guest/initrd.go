package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// InitrdOptions says what an initramfs holds.
type InitrdOptions struct {
	Kernel  Kernel
	Init    string   // host path of the static program that becomes /init
	Modules []string // modules that init loads, each with what it needs, in this order; "name key=value" gives parameters
	Busybox string   // host path of a static busybox; "" for none
	Files   []File   // further files; for a path named twice the first counts
}

// WriteInitrd writes an initramfs (uncompressed cpio) to w. The same options and files give the same bytes. Init finds
// the modules to load in early.ModuleList.
func WriteInitrd(w io.Writer, o InitrdOptions) error {
	a := NewArchive(w)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/mnt", "/etc", "/root"} {
		a.Dir(dir, 0o755)
	}
	a.CharDevice("/dev/console", 0o600, 5, 1) // becomes init's stdin, stdout and stderr
	files := []File{{Path: "/init", Host: o.Init, Mode: 0o755}}
	if o.Busybox != "" {
		files = append(files, File{Path: "/bin/busybox", Host: o.Busybox, Mode: 0o755})
		a.Symlink("/bin/sh", "busybox")
	}
	modules, list, err := initrdModules(o.Kernel, o.Modules)
	if err != nil {
		return err
	}
	files = append(append(files, modules...), o.Files...)
	var seen []string
	for _, f := range files {
		name := path.Clean(f.Path)
		if slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		if err := addFile(a, f); err != nil {
			return err
		}
	}
	a.File("/etc/modules", 0o644, list)
	return a.Close()
}

func addFile(a *Archive, f File) error {
	data, err := os.ReadFile(f.Host)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if f.Mode == 0 {
		info, err := os.Stat(f.Host)
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		f.Mode = uint32(info.Mode().Perm())
	}
	if strings.HasSuffix(f.Path, ".ko") {
		data = stripSignature(data)
	}
	a.File(f.Path, f.Mode, data)
	return nil
}

// stripSignature cuts the signature off a module (Documentation/admin-guide/module-signing.rst): checking it costs more
// than all else that loading does, in an emulator. The kernel only notes that it is "tainted" then.
func stripSignature(module []byte) []byte {
	const magic = "~Module signature appended~\n"
	body, ok := bytes.CutSuffix(module, []byte(magic))
	const info = 12 // struct module_signature; its last word is the signature's length, big-endian
	if !ok || len(body) < info {
		return module
	}
	length := uint64(binary.BigEndian.Uint32(body[len(body)-4:])) + info
	if length > uint64(len(body)) {
		return module
	}
	return body[:uint64(len(body))-length]
}

// initrdModules returns the module files to include and the list for init: one "path parameters" line each, in order.
func initrdModules(k Kernel, wanted []string) ([]File, []byte, error) {
	params := map[string]string{}
	var names []string
	for _, m := range wanted {
		name, p, _ := strings.Cut(m, " ")
		names = append(names, name)
		params[moduleName(name)] = strings.TrimSpace(p)
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	order, err := k.ModuleOrder(names...)
	if err != nil {
		return nil, nil, err
	}
	var files []File
	var list bytes.Buffer
	for _, m := range order {
		inside := "/lib/modules/" + path.Base(m)
		files = append(files, File{Path: inside, Host: filepath.Join(k.Modules, m), Mode: 0o644})
		fmt.Fprintln(&list, strings.TrimSpace(inside+" "+params[moduleName(m)]))
	}
	return files, list.Bytes(), nil
}
